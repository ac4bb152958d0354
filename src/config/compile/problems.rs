//! Findings during compilation, and parsing of values.

use std::{collections::BTreeMap, fmt::Display, ops::Range, time::Duration};

use crate::{
    config::{
        file::{Located, Text, Texts},
        report::Finding,
        suggest::{did_you_mean, listed, nearest},
        value,
    },
    fence::PurgeMode,
};

/// The findings so far, and the source text that they refer to.
pub(super) struct Problems<'a> {
    pub(super) source: &'a str,
    pub(super) findings: &'a mut Vec<Finding>,
}

impl Problems<'_> {
    pub(super) fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Adds a finding once, even if several routes share the text that the finding is about.
    pub(super) fn push_once(&mut self, finding: Finding) {
        let is_same = |known: &Finding| known.at == finding.at && known.message == finding.message;
        if !self.findings.iter().any(is_same) {
            self.findings.push(finding);
        }
    }

    pub(super) fn error(&mut self, at: &Range<usize>, message: impl Into<String>) {
        self.push(Finding::error(Some(at.clone()), message));
    }

    /// Checks that a certificate and its key are both set, or both absent.
    pub(super) fn together(&mut self, (cert, key): (&Option<Text>, &Option<Text>)) {
        if let (Some(one), None) | (None, Some(one)) = (cert, key) {
            let message = "`cert` and `key` must be set together";
            self.push(Finding::error(Some(one.span.clone()), message).doubtful());
        }
    }

    /// Parses a value, and adds a finding if it is invalid.
    pub(super) fn read<T, E: Display>(
        &mut self,
        text: &Text,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        read(text).map_err(|problem| self.error(&text.span, problem.to_string())).ok()
    }

    /// Parses the values of a list. Leaves out invalid values, with a finding for each.
    pub(super) fn each<T, E: Display>(
        &mut self,
        texts: Option<&Texts>,
        mut read: impl FnMut(&str) -> Result<T, E>,
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
            Duration::ZERO => Err("expected a value above zero"),
            duration => Ok(duration),
        })
    }

    pub(super) fn size(&mut self, text: Option<&Text>) -> Option<u64> {
        self.read(text?, value::size)
    }

    pub(super) fn positive_count(&mut self, count: Option<&Located<u64>>) -> Option<usize> {
        let count = count?;
        if count.value == 0 {
            self.error(&count.span, "expected a value above zero");
            return None;
        }
        usize::try_from(count.value).ok()
    }

    /// Parses a text that must be one of `words`.
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
        let message = format!("expected one of {}", listed(known()));
        let help = did_you_mean(nearest(text, known()));
        self.push(Finding::error(Some(text.span.clone()), message).maybe_help(help));
        None
    }

    /// Returns a required string. Adds a finding if it is missing or empty.
    pub(super) fn required<'a>(
        &mut self,
        text: Option<&'a Text>,
        table: &Range<usize>,
        path: &str,
        key: &str,
    ) -> Option<&'a Text> {
        match text {
            Some(text) if text.is_empty() => {
                self.error(&text.span, format!("`{path}.{key}` is empty"));
                None
            }
            Some(text) => Some(text),
            None => {
                let message = format!("`{path}` has no `{key}`");
                self.push(Finding::error(Some(table.clone()), message).doubtful());
                None
            }
        }
    }

    /// Parses a name that labels logs and metrics.
    pub(super) fn label(&mut self, kind: &str, text: &Text) -> Option<Box<str>> {
        let is_break = |character: char| character.is_whitespace() || character.is_control();
        if text.is_empty() || text.contains(is_break) {
            let message = format!(
                "expected one word as the name of a {kind}, since it labels logs and metrics"
            );
            self.error(&text.span, message);
            return None;
        }
        Some(text.as_str().into())
    }

    /// Checks that names are unique. Returns them with their positions.
    pub(super) fn unique<'a>(
        &mut self,
        kind: &str,
        names: impl Iterator<Item = Option<&'a Text>>,
    ) -> BTreeMap<&'a str, &'a Range<usize>> {
        let mut known = BTreeMap::new();
        for name in names.flatten() {
            if let Some(other) = known.insert(name.as_str(), &name.span) {
                let message = format!("another {kind} has this name");
                let finding = Finding::error(Some(name.span.clone()), message);
                self.push(finding.context(Range::clone(other), "the other one"));
            }
        }
        known
    }

    pub(super) fn purge_mode(&mut self, text: Option<&Text>) -> PurgeMode {
        let modes = [PurgeMode::Hard, PurgeMode::Soft].map(|mode| (mode.as_str(), mode));
        self.one_of(text, &modes).unwrap_or_default()
    }

    /// Returns the span of a part of a string, or of the whole string if the file spells it with
    /// escapes or references.
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
