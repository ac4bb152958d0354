//! Reports of errors and warnings: file, line, marker, message, suggestion.

use std::{fmt, io, ops::Range};

use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, renderer::DecorStyle,
};
use thiserror::Error;

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {file}: {cause}")]
    Unreadable {
        /// Name of the file as given.
        file: String,
        /// Error from the operating system.
        cause: io::Error,
    },
    /// The file has errors.
    #[error("{0}")]
    Invalid(ConfigReport),
}

impl ConfigError {
    /// Formats the error with colours for a terminal; `Display` has none.
    pub fn styled(&self) -> String {
        match self {
            Self::Unreadable { .. } => {
                format!("error: {self}\n = help: name the file with `--config`\n")
            }
            Self::Invalid(report) => report.styled(),
        }
    }
}

/// All findings in one configuration file, in file order.
///
/// `Display` formats them as plain text. Only lines of the file itself are shown, so values from
/// the environment or secret files never appear. Secrets in the file are masked.
#[derive(Clone, Default)]
pub struct ConfigReport {
    /// Name of the file.
    pub file: String,
    /// The findings.
    pub problems: Vec<Finding>,
    source: String,
}

/// One finding in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Severity.
    pub severity: Severity,
    /// The problem.
    pub message: String,
    /// Byte range in the file; `None` if something is missing from it.
    pub at: Option<Range<usize>>,
    /// Advice on how to solve the problem.
    pub help: Option<String>,
    /// Another byte range that explains the finding, with a label.
    pub context: Option<(Range<usize>, &'static str)>,
    /// Whether another error may be the cause.
    pub certainty: FindingConfidence,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Larder does not start.
    Error,
    /// Larder starts, but the setting is probably a mistake.
    Warning,
}

/// Whether a finding is independent of other findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FindingConfidence {
    /// The finding is independent of other findings.
    Certain,
    /// A misspelt key elsewhere may be the cause, so the finding is shown only if all errors are
    /// doubtful.
    Doubtful,
}

impl Finding {
    /// Creates an error at this position.
    pub fn error(at: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            at,
            help: None,
            context: None,
            certainty: FindingConfidence::Certain,
        }
    }

    /// Creates a warning at this position.
    pub fn warning(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(Some(at), message) }
    }

    /// Adds advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Adds advice, if there is any.
    #[must_use]
    pub fn maybe_help(self, help: Option<String>) -> Self {
        Self { help, ..self }
    }

    /// Adds another position that explains the finding.
    #[must_use]
    pub fn context(self, at: Range<usize>, label: &'static str) -> Self {
        Self { context: Some((at, label)), ..self }
    }

    /// Marks the finding as a possible consequence of another error.
    #[must_use]
    pub fn doubtful(self) -> Self {
        Self { certainty: FindingConfidence::Doubtful, ..self }
    }
}

impl ConfigReport {
    /// Creates a report about a text whose secrets are masked. Hides doubtful findings after
    /// certain errors.
    pub(super) fn new(file: &str, source: &str, mut problems: Vec<Finding>) -> Self {
        let is_certain_error = |finding: &Finding| {
            finding.severity == Severity::Error && finding.certainty == FindingConfidence::Certain
        };
        if problems.iter().any(is_certain_error) {
            problems.retain(|finding| finding.certainty == FindingConfidence::Certain);
        }
        problems.sort_by_key(|finding| finding.at.as_ref().map(|at| at.start));
        Self { file: file.to_owned(), source: source.to_owned(), problems }
    }

    /// Creates a report about the same text with other findings.
    #[must_use]
    pub fn with_findings(&self, problems: Vec<Finding>) -> Self {
        Self::new(&self.file, &self.source, problems)
    }

    /// Returns whether there are errors.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Formats the report with colours for a terminal.
    pub fn styled(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let renderer = renderer.clone().decor_style(DecorStyle::Ascii);
        let mut text = String::new();
        for finding in &self.problems {
            text.push_str(&renderer.render(&[self.group(finding)]));
            text.push_str("\n\n");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }

    fn group<'a>(&'a self, finding: &'a Finding) -> Group<'a> {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&*finding.message);
        let group = match &finding.at {
            None => title.element(Origin::path(&*self.file)),
            Some(at) => {
                let primary = AnnotationKind::Primary.span(self.clamped(at));
                let context = finding.context.iter().map(|(at, label)| {
                    AnnotationKind::Context.span(self.clamped(at)).label(*label)
                });
                let snippet = Snippet::source(&*self.source).path(&*self.file);
                title.element(snippet.annotation(primary).annotations(context))
            }
        };
        match &finding.help {
            Some(help) => group.element(Level::HELP.message(&**help)),
            None => group,
        }
    }

    /// Moves a span to character boundaries within the text, as the renderer requires.
    fn clamped(&self, at: &Range<usize>) -> Range<usize> {
        let start = self.source.floor_char_boundary(at.start);
        let end = self.source.ceil_char_boundary(at.end);
        start..end.max(start)
    }
}

impl fmt::Debug for ConfigReport {
    /// Omits the text of the file, which may contain secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConfigReport")
            .field("file", &self.file)
            .field("problems", &self.problems)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ConfigReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(&Renderer::plain()))
    }
}
