//! `larder advise`: proposes routes from access logs.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use flate2::bufread::MultiGzDecoder;

use super::{advise_shadow, output};
use crate::advise::{AdviceOptions, Advisor, ProposedTable};

/// Maximum length of a line in bytes. Longer lines are skipped.
const MAX_LINE: usize = 64 << 10;

/// Maximum size of standard input, which is kept in memory because it is read several times.
const MAX_INPUT: u64 = 256 << 20;

/// The flags of `larder advise`.
#[derive(Debug, Clone, Args)]
pub struct AdviseArguments {
    /// Access logs, oldest first, plain, `.gz` or `.zst`; `-` is standard input. Formats: nginx's
    /// `combined`, JSON lines, and Larder's own.
    #[arg(value_name = "LOG", required_unless_present = "shadow")]
    pub logs: Vec<PathBuf>,
    /// The percentage of hits that may be outdated. By default, a lifetime is about the time
    /// between two changes.
    #[arg(long, value_name = "PERCENT", value_parser = percentage)]
    pub max_outdated: Option<f64>,
    /// Use only requests to this host. The log has to contain hosts.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Read a report of `larder shadow --json` instead of logs, and propose which routes can go
    /// live; `-` is standard input.
    #[arg(long, value_name = "REPORT", conflicts_with_all = ["logs", "max_outdated", "host"])]
    pub shadow: Option<PathBuf>,
    /// The configuration file with the report's routes, which provides their `match` lines.
    #[arg(long, short, value_name = "FILE", requires = "shadow")]
    pub config: Option<PathBuf>,
}

/// Prints a proposed table of routes.
pub(crate) fn execute(arguments: &AdviseArguments) -> anyhow::Result<ExitCode> {
    if let Some(report) = &arguments.shadow {
        output::print(&advise_shadow::proposal(report, arguments.config.as_deref())?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut log = LogFiles::open(&arguments.logs)?;
    let mut advisor = Advisor::new(AdviceOptions {
        max_outdated: arguments.max_outdated.map_or(1.0, |percent| percent / 100.0),
        host: arguments.host.clone(),
    });
    loop {
        log.read(&mut |line| advisor.line(line))?;
        if !advisor.next_pass() {
            break;
        }
    }
    log.report();
    report(&advisor)?;
    let proposal = advisor.proposal();
    output::print(&ProposedTable { advisor: &advisor, proposal: &proposal }.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn percentage(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok();
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .ok_or_else(|| "expected a percentage from 0 to 100, such as `1` or `0.5%`".to_owned())
}

/// Warns about lines that were not understood. Fails if the log contains no request.
fn report(advisor: &Advisor) -> anyhow::Result<()> {
    let log = advisor.summary();
    let skipped = [
        (log.unknown_lines, "have an unknown format"),
        (log.lines_without_time, "have no time"),
        (log.broken_requests, "are no HTTP request"),
    ];
    let skipped: Vec<String> = skipped
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, problem)| format!("{count} lines {problem}"))
        .collect();
    if log.requests == 0 {
        let found = if skipped.is_empty() { "it is empty".to_owned() } else { skipped.join(", ") };
        bail!(
            "no request in the log: {found}; expected nginx's `combined` format, JSON lines with a time, `request` and `status`, or Larder's access log"
        );
    }
    if !skipped.is_empty() {
        anstream::eprintln!("warning: skipped: {}", skipped.join(", "));
    }
    Ok(())
}

/// The logs, which can be read several times.
struct LogFiles {
    sources: Vec<Source>,
    /// Problems that did not stop the reading, each listed once.
    problems: Vec<String>,
}

enum Source {
    File(PathBuf),
    /// The content of standard input.
    Memory(Vec<u8>),
}

impl LogFiles {
    fn open(paths: &[PathBuf]) -> anyhow::Result<Self> {
        let (mut sources, mut problems) = (Vec::new(), Vec::new());
        for path in paths {
            if path != Path::new("-") {
                let file = File::open(path).with_context(|| path.display().to_string())?;
                if !file.metadata()?.is_file() {
                    bail!("{}: not a file; pipe it in with `-`", path.display());
                }
                sources.push(Source::File(path.clone()));
                continue;
            }
            let mut text = Vec::new();
            std::io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut text)?;
            if text.len() as u64 > MAX_INPUT {
                problems.push(format!(
                    "only the first {} MiB of standard input were read; name files to read more",
                    MAX_INPUT >> 20
                ));
            }
            sources.push(Source::Memory(text));
        }
        Ok(Self { sources, problems })
    }

    /// Reads all lines once.
    fn read(&mut self, line: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
        for source in &self.sources {
            let problem = match source {
                Source::File(path) => {
                    let file = File::open(path).with_context(|| path.display().to_string())?;
                    let name = path.display().to_string();
                    read_packed(BufReader::with_capacity(1 << 18, file), line)
                        .with_context(|| name.clone())?
                        .map(|problem| format!("{name}: {problem}"))
                }
                Source::Memory(text) => read_packed(text.as_slice(), line)?
                    .map(|problem| format!("standard input: {problem}")),
            };
            self.problems.extend(problem.filter(|it| !self.problems.contains(it)));
        }
        Ok(())
    }

    fn report(&self) {
        for problem in &self.problems {
            anstream::eprintln!("warning: {problem}");
        }
    }
}

/// Reads the lines of a file that may be compressed. Returns a problem if only a part was read.
fn read_packed(
    mut file: impl BufRead,
    line: &mut dyn FnMut(&str),
) -> anyhow::Result<Option<String>> {
    let start = file.fill_buf()?;
    let (is_gzip, is_zstd) =
        (start.starts_with(&[0x1f, 0x8b]), start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    let outcome = if is_gzip {
        read_lines(BufReader::new(MultiGzDecoder::new(file)), line)
    } else if is_zstd {
        read_lines(BufReader::new(zstd::Decoder::with_buffer(file)?), line)
    } else {
        return Ok(read_lines(file, line).map(|()| None)?);
    };
    // A compressed file that is cut off is still a log up to there.
    Ok(outcome.err().map(|error| format!("read up to an error: {error}")))
}

/// Reads lines within bounded memory. Overlong lines are skipped; invalid UTF-8 is replaced.
fn read_lines(mut file: impl BufRead, line: &mut dyn FnMut(&str)) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let read = file.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        if buffer.last() != Some(&b'\n') && read == MAX_LINE {
            skip_line(&mut file)?;
            line("");
            continue;
        }
        line(&String::from_utf8_lossy(&buffer));
    }
}

fn skip_line(file: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let part = file.fill_buf()?;
        if part.is_empty() {
            return Ok(());
        }
        let end = part.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(part.len(), |end| end + 1);
        file.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}
