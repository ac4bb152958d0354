//! Which writes concern which reads, and the times of the last writes.
//!
//! A write to `/products/5` concerns the item `/products/5` and what is below it, and the lists at
//! and below `/products`. A write to `/products` concerns the lists.

use std::collections::{BTreeSet, HashMap};

use smallvec::SmallVec;

use super::{
    log::{LoggedRequest, digest},
    paths, segment,
    templates::{PathTemplate, TemplateId, TemplateSegment, Templates},
};

/// Number of remembered write times above which old times are dropped.
const MAX_WRITES: usize = 200_000;

/// Keys of the items and lists that a request concerns.
pub(super) type ResourceKeys = SmallVec<[u64; 4]>;

/// The path prefixes of templates with writes.
#[derive(Debug, Default)]
pub(super) struct WritePaths {
    /// The literal segments before the first param of each template with writes.
    prefixes: BTreeSet<Vec<String>>,
}

impl WritePaths {
    /// Collects the prefixes of these templates.
    pub(super) fn of<'a>(written: impl Iterator<Item = &'a PathTemplate>) -> Self {
        let prefixes = written.map(|template| names(template.literal_prefix()));
        Self { prefixes: prefixes.filter(|names| is_specific(names)).collect() }
    }

    /// Returns the lists whose writes concern a list at this template, shortest path first.
    pub(super) fn concerning<'a>(
        &'a self,
        template: &'a PathTemplate,
    ) -> impl Iterator<Item = &'a [String]> {
        let own = names(template.literal_prefix());
        let is_list = template.last_param().is_none();
        let found = self.prefixes.iter().filter(move |prefix| is_list && own.starts_with(prefix));
        found.map(Vec::as_slice)
    }

    /// Returns the keys for a read: the key of its item, or the keys of the lists it depends on.
    pub(super) fn read_keys(&self, template: &PathTemplate, path: &str) -> ResourceKeys {
        match template.last_param() {
            Some((at, _)) => cut(path, at).into_iter().collect(),
            None => self.concerning(template).map(list_key).collect(),
        }
    }
}

/// Returns the keys for a write: the keys of all items on its path, and the key of its list.
pub(super) fn write_keys(template: &PathTemplate, path: &str) -> ResourceKeys {
    let is_param = |at: &usize| matches!(template.0.get(*at), Some(TemplateSegment::Param(_)));
    let items = (0..template.0.len()).filter(is_param).filter_map(|at| cut(path, at));
    items.chain([list_key(&names(template.literal_prefix()))]).collect()
}

/// Returns the key of the item whose path ends with this segment.
fn cut(path: &str, last: usize) -> Option<u64> {
    let segments = paths::split(path)?;
    segments.get(..=last).map(|front| digest(("item", front)))
}

fn list_key(names: &[String]) -> u64 {
    digest(("list", names))
}

/// Returns the key of all writes at a template.
pub(super) fn template_key(template: TemplateId) -> u64 {
    digest(("template", template))
}

fn names(segments: &[TemplateSegment]) -> Vec<String> {
    let names = segments.iter().filter_map(|segment| match segment {
        TemplateSegment::Literal(name) => Some(name.clone()),
        TemplateSegment::Param(_) => None,
    });
    names.collect()
}

/// Returns whether a prefix has a name that does not stand for the whole API.
fn is_specific(names: &[String]) -> bool {
    names.iter().any(|name| !segment::is_generic(name))
}

/// The times of the last writes by key, for all clients together and for each client.
#[derive(Debug, Default)]
pub(super) struct LastWrites(HashMap<u64, i64>);

impl LastWrites {
    /// Records the time of a successful write.
    pub(super) fn record(
        &mut self,
        request: &LoggedRequest<'_>,
        template: TemplateId,
        templates: &Templates,
    ) {
        let Some(path) = templates.list.get(template) else { return };
        if self.0.len() > MAX_WRITES {
            self.0.retain(|_, at| request.at - *at < 600_000);
        }
        if self.0.len() > 2 * MAX_WRITES {
            self.0.clear();
        }
        for key in write_keys(path, &request.path).into_iter().chain([template_key(template)]) {
            self.0.insert(key, request.at);
            if let Some(client) = request.client {
                self.0.insert(digest((key, client)), request.at);
            }
        }
    }

    /// Returns the time of the last write with one of these keys; `None` if there is none. With
    /// `client`, only that client's writes count.
    pub(super) fn last(&self, keys: &[u64], client: Option<u64>) -> Option<i64> {
        let key = |key: &u64| client.map_or(*key, |client| digest((*key, client)));
        keys.iter().filter_map(|it| self.0.get(&key(it))).max().copied()
    }
}
