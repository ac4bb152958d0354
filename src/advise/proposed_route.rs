//! A proposed route, and the text forms of its parts.

use std::fmt;

use super::templates::{PathTemplate, TemplateSegment};

/// A proposed route.
#[derive(Debug, Clone)]
pub(super) struct ProposedRoute {
    pub(super) name: String,
    /// The methods in `match`; empty for all methods.
    pub(super) methods: String,
    pub(super) path: PathTemplate,
    pub(super) is_open: bool,
    /// Comments about the route's requests, one line each.
    pub(super) about: Vec<String>,
    pub(super) settings: Vec<ProposedSetting>,
    pub(super) tags: Vec<TagName>,
    pub(super) purged: Vec<TagName>,
}

/// A setting of a route as a line of TOML, and the reason for the setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProposedSetting {
    pub(super) line: String,
    pub(super) reason: String,
}

impl ProposedRoute {
    /// Returns the value of `match`.
    pub(super) fn pattern(&self) -> String {
        let rest = if self.is_open { "/**" } else { "" };
        let space = if self.methods.is_empty() { "" } else { " " };
        format!("{}{space}{}{rest}", self.methods, self.path)
    }

    /// Returns a sort key: names before params before `**`, since the first matching route wins.
    pub(super) fn precedence(&self) -> Vec<(u8, String)> {
        let segments = self.path.0.iter().map(|segment| match segment {
            TemplateSegment::Literal(name) => (0, name.clone()),
            TemplateSegment::Param(_) => (1, String::new()),
        });
        let end = if self.is_open { (3, String::new()) } else { (2, self.methods.clone()) };
        segments.chain([end]).collect()
    }

    /// Returns whether the route matches the paths of a template, whatever the method.
    pub(super) fn covers(&self, template: &PathTemplate) -> bool {
        if self.is_open { template.0.starts_with(&self.path.0) } else { template.0 == self.path.0 }
    }
}

/// A tag without `:{user}`, which is appended if `is_of_user` is set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TagName {
    pub(super) base: String,
    pub(super) is_of_user: bool,
}

impl fmt::Display for TagName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.base)?;
        if self.is_of_user { formatter.write_str(":{user}") } else { Ok(()) }
    }
}
