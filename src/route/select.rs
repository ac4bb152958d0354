//! Selection: the first route that matches a request.

use std::sync::Arc;

use http::Method;

use super::{Params, Route};
use crate::policy::Rule;

/// All routes in order, and the one for what none of them matches.
///
/// Selecting costs a binary search over the literals that paths begin with, then a comparison for
/// each route that shares this beginning or begins with a placeholder. It does not allocate.
#[derive(Debug, Clone)]
pub struct RouteTable {
    routes: Box<[Arc<Route>]>,
    unmatched: Arc<Route>,
    /// Sorted by literal.
    branches: Box<[Branch]>,
    /// The routes to try for any other first segment, in order.
    others: Box<[usize]>,
}

/// What to try for paths that begin with this literal segment.
#[derive(Debug, Clone)]
struct Branch {
    first: Box<str>,
    /// Indexes of routes, in order.
    tried: Box<[usize]>,
}

/// The route that governs a request, and what its pattern named in the path.
#[derive(Debug, Clone)]
pub struct Selection<'a> {
    /// Its place among all routes; the unmatched one comes last.
    pub index: usize,
    /// The route.
    pub route: &'a Arc<Route>,
    /// Its named segments.
    pub params: Params<'a>,
}

impl RouteTable {
    /// A table that tries `routes` in order; those without a pattern never match.
    pub fn new(routes: Vec<Route>, unmatched: Route) -> Self {
        let first_of = |route: &Route| -> Option<Box<str>> {
            route.pattern.as_ref().and_then(|pattern| pattern.first_literal()).map(Into::into)
        };
        let mut firsts: Vec<Box<str>> = routes.iter().filter_map(first_of).collect();
        firsts.sort_unstable();
        firsts.dedup();
        let tried_for = |literal: Option<&str>| -> Box<[usize]> {
            let tried = |route: &Route| first_of(route).is_none_or(|own| Some(&*own) == literal);
            (0..).zip(&routes).filter(|(_, route)| tried(route)).map(|(index, _)| index).collect()
        };
        let branches = firsts.into_iter().map(|first| {
            let tried = tried_for(Some(&first));
            Branch { first, tried }
        });
        Self {
            branches: branches.collect(),
            others: tried_for(None),
            routes: routes.into_iter().map(Arc::new).collect(),
            unmatched: Arc::new(unmatched),
        }
    }

    /// The first route that matches, else the unmatched one.
    ///
    /// `host` may carry a port. `path` is in normal form, see
    /// [`normal_path`](crate::key::target::normal_path): matching any other spelling would let one
    /// path be stored under another's rule.
    pub fn select<'a>(&'a self, method: &Method, host: &str, path: &'a str) -> Selection<'a> {
        if self.routes.is_empty() {
            return self.nothing();
        }
        let first = path.strip_prefix('/').unwrap_or(path).split('/').next().unwrap_or_default();
        let found = self.branches.binary_search_by(|branch| (*branch.first).cmp(first)).ok();
        let branch = found.and_then(|index| self.branches.get(index));
        let tried = branch.map_or(&self.others, |branch| &branch.tried);
        tried
            .iter()
            .filter_map(|index| Some((*index, self.routes.get(*index)?)))
            .find_map(|(index, route)| {
                let params = route.pattern.as_ref()?.matches(method, host, path)?;
                Some(Selection { index, route, params })
            })
            .unwrap_or_else(|| self.nothing())
    }

    fn nothing(&self) -> Selection<'_> {
        let params = Params::default();
        Selection { index: self.routes.len(), route: &self.unmatched, params }
    }

    /// The route at this place; the unmatched one past the last.
    pub fn route(&self, index: usize) -> &Arc<Route> {
        self.routes.get(index).unwrap_or(&self.unmatched)
    }

    /// The routes in order, without the unmatched one.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// The route for what no pattern matches.
    pub fn unmatched(&self) -> &Arc<Route> {
        &self.unmatched
    }
}

impl Default for RouteTable {
    /// No routes: a correct RFC 9111 cache for everything.
    fn default() -> Self {
        Self::new(Vec::new(), Route::unmatched(Rule::default()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::route::Pattern;

    fn table(patterns: &[&str]) -> RouteTable {
        let route = |text: &&str| Route {
            name: Arc::from(*text),
            pattern: Some(Pattern::parse(text).unwrap()),
            ..Route::unmatched(Rule::default())
        };
        RouteTable::new(patterns.iter().map(route).collect(), Route::unmatched(Rule::default()))
    }

    #[test]
    fn the_first_match_wins() {
        let table = table(&["/a/b", "/{any}/c", "POST /a/**", "/a/**", "h/x", "/"]);
        let select = |method: Method, host: &str, path: &str| {
            table.select(&method, host, path).route.name.to_string()
        };
        assert_eq!(select(Method::GET, "h", "/a/b"), "/a/b");
        assert_eq!(select(Method::POST, "h", "/a/c"), "/{any}/c");
        assert_eq!(select(Method::POST, "h", "/a/d"), "POST /a/**");
        assert_eq!(select(Method::GET, "h", "/a/d"), "/a/**");
        assert_eq!(select(Method::GET, "h", "/z/c"), "/{any}/c");
        assert_eq!(select(Method::GET, "h", "/x"), "h/x");
        assert_eq!(select(Method::GET, "i", "/x"), Route::UNMATCHED);
        assert_eq!(select(Method::GET, "h", "/"), "/");
        assert_eq!(select(Method::OPTIONS, "h", "*"), Route::UNMATCHED);
    }

    #[test]
    fn params_are_those_of_the_selected_route() {
        let table = table(&["/orders/{order}/items/{item}"]);
        let selection = table.select(&Method::GET, "h", "/orders/7/items/9");
        assert_eq!(selection.params.value("order"), Some("7"));
        assert_eq!(selection.params.value("item"), Some("9"));
        assert_eq!(selection.params.value("other"), None);
    }

    proptest! {
        #[test]
        fn the_index_selects_as_trying_all_would(
            patterns in prop::collection::vec("(/(a|b|\\{x\\})){1,2}(/\\*\\*)?", 0..6)
                .prop_map(|all| all.into_iter().filter(|text| Pattern::parse(text).is_ok()).collect::<Vec<_>>()),
            path in "(/[abc]?){1,3}",
        ) {
            let texts: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let table = table(&texts);
            let expected = texts
                .iter()
                .find(|text| Pattern::parse(text).unwrap().params(&path).is_some())
                .copied()
                .unwrap_or(Route::UNMATCHED);
            prop_assert_eq!(&*table.select(&Method::GET, "h", &path).route.name, expected);
        }
    }
}
