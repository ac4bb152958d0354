//! What is wrong with a configuration, and how it is shown: file, line, caret, message, suggestion.

use std::{fmt, io, ops::Range};

use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, renderer::DecorStyle,
};
use thiserror::Error;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read at all.
    #[error("{file} cannot be read: {cause}")]
    Unreadable {
        /// Its name as given.
        file: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The file was read, but says something that cannot be meant.
    #[error("{0}")]
    Invalid(ConfigReport),
}

impl ConfigError {
    /// The text for a terminal that shows colours; `Display` gives the same without.
    pub fn styled(&self) -> String {
        match self {
            Self::Unreadable { .. } => {
                format!("error: {self}\n = help: name the file with `--config`\n")
            }
            Self::Invalid(report) => report.styled(),
        }
    }
}

/// Everything found in one configuration file, in the order of the file.
///
/// `Display` renders it as plain text. Only lines of the file itself are shown, so that values that
/// came from the environment or from secret files never are; secrets in the file are masked.
#[derive(Clone, Default)]
pub struct ConfigReport {
    /// The file's name.
    pub file: String,
    /// What was found.
    pub problems: Vec<Finding>,
    source: String,
}

/// One thing found in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The bytes of the file that are; none for what is missing altogether.
    pub at: Option<Range<usize>>,
    /// What to do about it.
    pub help: Option<String>,
    /// Another place that explains it, and why.
    pub context: Option<(Range<usize>, &'static str)>,
    /// Whether an error elsewhere may be the cause.
    pub certainty: Certainty,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Larder does not start with it.
    Error,
    /// Larder starts, but this is hardly meant.
    Warning,
}

/// Whether a finding stands by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// It does.
    Certain,
    /// A misspelt key elsewhere may have caused it; only shown where it is the only explanation.
    Doubtful,
}

impl Finding {
    /// An error at this place.
    pub fn error(at: Option<Range<usize>>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            at,
            help: None,
            context: None,
            certainty: Certainty::Certain,
        }
    }

    /// A warning at this place.
    pub fn warning(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(Some(at), message) }
    }

    /// The same with advice.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The same with advice, if there is any.
    #[must_use]
    pub fn maybe_help(self, help: Option<String>) -> Self {
        Self { help, ..self }
    }

    /// The same with another place that explains it.
    #[must_use]
    pub fn context(self, at: Range<usize>, label: &'static str) -> Self {
        Self { context: Some((at, label)), ..self }
    }

    /// The same, but left out where other errors may be the cause.
    #[must_use]
    pub fn doubtful(self) -> Self {
        Self { certainty: Certainty::Doubtful, ..self }
    }
}

impl ConfigReport {
    /// A report about this text, in which secrets are masked.
    pub(super) fn new(file: &str, source: &str, mut problems: Vec<Finding>) -> Self {
        let is_certain_error = |finding: &Finding| {
            finding.severity == Severity::Error && finding.certainty == Certainty::Certain
        };
        if problems.iter().any(is_certain_error) {
            problems.retain(|finding| finding.certainty == Certainty::Certain);
        }
        problems.sort_by_key(|finding| finding.at.as_ref().map(|at| at.start));
        Self { file: file.to_owned(), source: source.to_owned(), problems }
    }

    /// A report about the same text that says this.
    #[must_use]
    pub fn with_findings(&self, problems: Vec<Finding>) -> Self {
        Self::new(&self.file, &self.source, problems)
    }

    /// Whether any of it is an error.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// The text for a terminal that shows colours.
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

    /// The span, moved to where the renderer accepts it: on character boundaries within the text.
    fn clamped(&self, at: &Range<usize>) -> Range<usize> {
        let start = self.source.floor_char_boundary(at.start);
        let end = self.source.ceil_char_boundary(at.end);
        start..end.max(start)
    }
}

impl fmt::Debug for ConfigReport {
    /// Leaves out the text of the file, which may hold secrets.
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
