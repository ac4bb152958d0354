//! Reading values while keeping count of what is wrong with them.

use std::{ops::Range, time::Duration};

use crate::config::{
    file::{Located, Text, Texts},
    report::Finding,
    suggest::{did_you_mean, listed, nearest},
    value,
};

/// What is wrong so far, and the text it is wrong in.
pub(super) struct Problems<'a> {
    pub(super) source: &'a str,
    pub(super) findings: &'a mut Vec<Finding>,
}

impl Problems<'_> {
    pub(super) fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Notes what is wrong with a text that several routes use; the first of them stands for all.
    pub(super) fn push_once(&mut self, finding: Finding) {
        let is_same = |known: &Finding| known.at == finding.at && known.message == finding.message;
        if !self.findings.iter().any(is_same) {
            self.findings.push(finding);
        }
    }

    pub(super) fn error(&mut self, at: &Range<usize>, message: impl Into<String>) {
        self.push(Finding::error(Some(at.clone()), message));
    }

    /// A value as `read` understands it.
    pub(super) fn read<T>(
        &mut self,
        text: &Text,
        read: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        read(text).map_err(|problem| self.error(&text.span, problem)).ok()
    }

    /// Those values of a list that `read` understands.
    pub(super) fn each<T>(
        &mut self,
        texts: Option<&Texts>,
        mut read: impl FnMut(&str) -> Result<T, &'static str>,
    ) -> Vec<T> {
        let Some(texts) = texts else {
            return Vec::new();
        };
        texts.iter().filter_map(|text| self.read(text, &mut read)).collect()
    }

    pub(super) fn duration(&mut self, text: Option<&Text>) -> Option<Duration> {
        self.read(text?, value::duration)
    }

    pub(super) fn positive_duration(&mut self, text: Option<&Text>) -> Option<Duration> {
        self.read(text?, |text| match value::duration(text)? {
            Duration::ZERO => Err("this cannot be zero"),
            duration => Ok(duration),
        })
    }

    pub(super) fn size(&mut self, text: Option<&Text>) -> Option<u64> {
        self.read(text?, value::size)
    }

    pub(super) fn positive_count(&mut self, count: Option<&Located<u64>>) -> Option<usize> {
        let count = count?;
        if count.value == 0 {
            self.error(&count.span, "this cannot be zero");
            return None;
        }
        usize::try_from(count.value).ok()
    }

    /// One of a closed set of words.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        text: Option<&Text>,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = text?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let known = || words.iter().map(|(word, _)| *word);
        let message = format!("this is one of {}", listed(known()));
        let help = did_you_mean(nearest(text, known()));
        self.push(Finding::error(Some(text.span.clone()), message).maybe_help(help));
        None
    }

    /// A string that must be there and say something.
    pub(super) fn required<'a>(
        &mut self,
        text: Option<&'a Text>,
        table: &Range<usize>,
        path: &str,
        key: &str,
    ) -> Option<&'a str> {
        match text {
            Some(text) if text.is_empty() => {
                self.error(&text.span, format!("`{path}.{key}` is empty"));
                None
            }
            Some(text) => Some(text.as_str()),
            None => {
                let message = format!("`{path}` has no `{key}`");
                self.push(Finding::error(Some(table.clone()), message).doubtful());
                None
            }
        }
    }

    /// A part of a string in the file, or the whole of it where the file spells it otherwise (with
    /// escapes or references).
    pub(super) fn subspan(&self, text: &Text, at: &Range<usize>) -> Range<usize> {
        let start = text.span.start + 1;
        let is_literal = self.source.get(start..start + text.len()) == Some(text.as_str());
        if is_literal && !at.is_empty() {
            start + at.start..start + at.end
        } else {
            text.span.clone()
        }
    }
}
