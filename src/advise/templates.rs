//! Templates of paths: `/tiles/{tile}` for `/tiles/sales` and `/tiles/stock`.

use std::{collections::BTreeMap, fmt};

use super::{
    paths::{self, MIN_CLIENTS, PathNode, PathTree},
    segment,
};
use crate::parsing::is_common_name;

/// Maximum number of names below one segment. If there are more, all of them are values.
const MAX_NAMES: usize = 24;

/// Maximum number of names directly below `api` or the root. If there are more, rare names are
/// values.
const MAX_TOP_NAMES: usize = 120;

/// A name in a log without clients is shown only if it was requested this often, and is common in
/// APIs.
const MIN_REQUESTS: u64 = 10;

/// Maximum number of templates that are analysed. Those with the most requests are kept.
const MAX_TEMPLATES: usize = 200;

/// The position of a template in its [`Templates`].
pub(super) type TemplateId = usize;

/// A pattern of paths that differ only in values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathTemplate(pub(super) Vec<TemplateSegment>);

/// A segment of a template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TemplateSegment {
    Literal(String),
    Param(String),
}

/// All templates of a log.
#[derive(Debug, Default)]
pub(super) struct Templates {
    pub(super) list: Vec<PathTemplate>,
    root: TemplateNode,
}

#[derive(Debug, Default)]
struct TemplateNode {
    id: Option<TemplateId>,
    names: BTreeMap<String, TemplateNode>,
    values: Option<Box<TemplateNode>>,
}

impl Templates {
    /// Builds the templates from all paths. Decides which segments are names and which are values.
    pub(super) fn of(tree: PathTree) -> Self {
        let mut builder = Builder { has_clients: tree.has_clients(), list: Vec::new() };
        let mut root = builder.node(tree.root, &mut Vec::new());
        let mut counts: Vec<u64> = builder.list.iter().map(|(_, count)| *count).collect();
        counts.sort_unstable_by(|one, other| other.cmp(one));
        let least = counts.get(MAX_TEMPLATES).map_or(0, |count| count + 1);
        let mut list = Vec::new();
        root.keep(&builder.list, least, &mut list);
        Self { list, root }
    }

    /// Returns the template of a path, or `None` if no template matches.
    pub(super) fn find(&self, path: &str) -> Option<TemplateId> {
        let mut node = &self.root;
        for name in paths::split(path)? {
            node = match node.names.get(name) {
                Some(below) => below,
                None => node.values.as_deref()?,
            };
        }
        node.id
    }
}

impl TemplateNode {
    /// Keeps the templates with at least this many requests, and renumbers them.
    fn keep(&mut self, all: &[(PathTemplate, u64)], least: u64, kept: &mut Vec<PathTemplate>) {
        let found = self.id.and_then(|id| all.get(id)).filter(|(_, count)| *count >= least);
        self.id = found.map(|(template, _)| {
            kept.push(template.clone());
            kept.len() - 1
        });
        let below = self.names.values_mut().chain(self.values.as_deref_mut());
        below.for_each(|node| node.keep(all, least, kept));
    }
}

struct Builder {
    has_clients: bool,
    /// The templates, each with its number of requests.
    list: Vec<(PathTemplate, u64)>,
}

impl Builder {
    fn node(&mut self, mut node: PathNode, above: &mut Vec<TemplateSegment>) -> TemplateNode {
        self.fold(&mut node, above);
        let mut built = TemplateNode::default();
        if node.ends > 0 && !above.is_empty() {
            built.id = Some(self.list.len());
            self.list.push((PathTemplate(above.clone()), node.ends));
        }
        for (name, below) in node.names {
            if below.count == 0 {
                built.names.insert(name, TemplateNode::default());
                continue;
            }
            above.push(TemplateSegment::Literal(name.clone()));
            built.names.insert(name, self.node(below, above));
            above.pop();
        }
        if let Some(below) = node.values {
            above.push(TemplateSegment::Param(param_name(above)));
            built.values = Some(Box::new(self.node(*below, above)));
            above.pop();
        }
        built
    }

    /// Turns names into values if they are members of a collection, or may not be shown.
    fn fold(&self, node: &mut PathNode, above: &[TemplateSegment]) {
        let collection = last_literal(above).unwrap_or_default();
        let is_top = above
            .iter()
            .all(|it| matches!(it, TemplateSegment::Literal(name) if segment::is_generic(name)));
        let is_collection = !is_top
            && (node.names.len() > MAX_NAMES
                || (segment::singular(collection).is_some() && are_alike(&node.names)));
        let is_full = node.names.len() > MAX_TOP_NAMES;
        let has_owners = segment::has_owners(collection);
        let all = node.count;
        let has_values = node.values.is_some();
        let is_value = |name: &str, below: &PathNode| {
            let is_rare = has_values && !is_top && below.count * 50 < all;
            let is_member = has_owners && !segment::is_reserved(name);
            let is_path = below.ends == 0 && !below.names.is_empty() && is_top;
            !name.is_empty()
                && (is_member
                    || is_rare
                    || (is_collection && !(is_path || name.contains('.')))
                    || (is_full && below.count * 100 < all))
        };
        let names = std::mem::take(&mut node.names);
        for (name, below) in names {
            if is_value(&name, &below) {
                node.values.get_or_insert_default().merge(below);
            } else if !name.is_empty() && !self.may_show(&name, &below) {
                // The name is neither shown nor counted as a value.
                node.names.insert(name, PathNode::default());
            } else {
                node.names.insert(name, below);
            }
        }
    }

    /// Returns whether so many clients requested a name that it cannot identify any of them. In a
    /// log without clients, a single client may have sent all requests.
    fn may_show(&self, name: &str, node: &PathNode) -> bool {
        if self.has_clients {
            return node.clients() >= MIN_CLIENTS;
        }
        node.count >= MIN_REQUESTS && (segment::is_generic(name) || is_common_name(name))
    }
}

/// Returns whether names look like members of one collection: there are at least two, they are only
/// read, and the names below them are nearly the same.
fn are_alike(names: &BTreeMap<String, PathNode>) -> bool {
    let mut below: Vec<&String> = names.values().flat_map(|node| node.names.keys()).collect();
    below.sort();
    below.dedup();
    names.len() >= 2
        && names.values().all(|node| !node.has_writes && node.ends > 0)
        && below.len() <= 3
}

fn last_literal(segments: &[TemplateSegment]) -> Option<&str> {
    match segments.last()? {
        TemplateSegment::Literal(name) => Some(name),
        TemplateSegment::Param(_) => None,
    }
}

/// Returns a name for the param below these segments, different from the names of their params.
fn param_name(above: &[TemplateSegment]) -> String {
    let is_name =
        |name: &String| name.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-".contains(&it));
    let base = last_literal(above).and_then(segment::singular).filter(is_name);
    let base = base.filter(|name| name != "user").unwrap_or_else(|| "id".to_owned());
    let is_taken = |name: &str| {
        above.iter().any(|it| matches!(it, TemplateSegment::Param(known) if known == name))
    };
    let mut name = base.clone();
    let mut number = 2;
    while is_taken(&name) {
        name = format!("{base}{number}");
        number += 1;
    }
    name
}

impl PathTemplate {
    /// Returns the literal segments before the first param.
    pub(super) fn literal_prefix(&self) -> &[TemplateSegment] {
        let end = self.0.iter().position(|it| matches!(it, TemplateSegment::Param(_)));
        self.0.get(..end.unwrap_or(self.0.len())).unwrap_or_default()
    }

    /// Returns the position and name of the last param, or `None` if there is none.
    pub(super) fn last_param(&self) -> Option<(usize, &str)> {
        self.0.iter().enumerate().rev().find_map(|(at, it)| match it {
            TemplateSegment::Param(name) => Some((at, &**name)),
            TemplateSegment::Literal(_) => None,
        })
    }

    /// Returns the last literal segment, or `None` if there is none.
    pub(super) fn last_literal(&self) -> Option<&str> {
        self.literals().last()
    }

    /// Returns the literal segments in order.
    pub(super) fn literals(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|it| match it {
            TemplateSegment::Literal(name) => Some(&**name),
            TemplateSegment::Param(_) => None,
        })
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.0 {
            match segment {
                TemplateSegment::Literal(name) => write!(formatter, "/{name}")?,
                TemplateSegment::Param(name) => write!(formatter, "/{{{name}}}")?,
            }
        }
        Ok(())
    }
}
