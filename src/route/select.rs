//! Route selection: the first route that matches a request.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use http::Method;
use smallvec::SmallVec;

use super::{GraphqlRule, Pattern, QuarantineState, Route, pattern::first_segment};
use crate::{
    key::uri::{PathForm, PathReadings},
    policy::CacheRule,
};

/// All routes in order, and the fallback route.
///
/// Selection costs a binary search over the first segments of patterns, and a comparison for each
/// route with the same first segment or a placeholder there. Paths with capitals or a trailing
/// slash cost twice as much. Only paths with several readings allocate.
#[derive(Debug, Clone)]
pub struct RouteTable {
    routes: Box<[Arc<Route>]>,
    unmatched: Arc<Route>,
    /// A copy of a route for each GraphQL operation with its own lifetime. Only
    /// [`Self::for_operation`] selects them; their indexes follow the fallback route.
    by_operation: Box<[Arc<Route>]>,
    /// Indexes of the routes in `by_operation`.
    operations: OperationIndex,
    sent: RouteIndex,
    loosest: RouteIndex,
    /// Whether the loosest form of any pattern differs from the pattern as written.
    has_loosest_variant: bool,
    has_graphql: bool,
}

/// Indexes of the routes for GraphQL operations, by the index of the original route and the
/// operation.
type OperationIndex = HashMap<usize, BTreeMap<Box<str>, usize>>;

/// The routes to try for a path in one form.
#[derive(Debug, Clone)]
struct RouteIndex {
    /// The branches, sorted by their literals.
    branches: Box<[IndexBranch]>,
    /// Indexes of the routes for any other first segment, in order.
    others: Box<[usize]>,
}

/// The routes to try for one literal first segment.
#[derive(Debug, Clone)]
struct IndexBranch {
    first: Box<str>,
    /// Indexes of routes, in order.
    candidates: Box<[usize]>,
}

/// The result of a selection.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// Index among all routes; the fallback route is last.
    pub index: usize,
    /// The route.
    pub route: &'a Arc<Route>,
    /// Whether all readings of the path select this route.
    pub agreement: ReadingAgreement,
}

/// Whether all readings of a path select the same route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadingAgreement {
    /// All readings select the same route, or a reading selects an uncached route, which then
    /// governs all readings.
    Unanimous,
    /// Readings select different routes, or more than two rounds of decoding have an effect.
    Split,
}

impl RouteTable {
    /// Creates a table that tries `routes` in order. Routes without a pattern never match.
    pub fn new(routes: Vec<Route>, unmatched: Route) -> Self {
        let (by_operation, operations) = by_operation(&routes);
        let has_loosest_variant =
            |route: &Route| route.pattern.as_ref().is_some_and(Pattern::has_loosest_variant);
        Self {
            sent: RouteIndex::of(&routes, PathForm::Sent),
            loosest: RouteIndex::of(&routes, PathForm::Loosest),
            has_loosest_variant: routes.iter().any(has_loosest_variant),
            has_graphql: routes.iter().any(|route| route.graphql.is_some()),
            by_operation: by_operation.into(),
            operations,
            routes: routes.into_iter().map(Arc::new).collect(),
            unmatched: Arc::new(unmatched),
        }
    }

    /// Returns the index of the route for a GraphQL operation, given the index of the route that a
    /// request selects by its head. `None` if the operation is not cached.
    pub fn for_operation(&self, index: usize, operation: Option<&str>) -> Option<usize> {
        let Some(operations) = self.operations.get(&index) else { return Some(index) };
        let listed = operation.and_then(|name| operations.get(name));
        listed.or_else(|| operations.get(GraphqlRule::OTHERS)).copied()
    }

    /// Returns whether any route caches GraphQL.
    pub fn any_reads_graphql(&self) -> bool {
        self.has_graphql
    }

    /// Returns whether any route encodes stored responses.
    pub fn any_encodes(&self) -> bool {
        self.unmatched.encodes() || self.routes.iter().any(|route| route.encodes())
    }

    /// Returns the first route that matches, or the fallback route.
    ///
    /// `host` is in canonical form and may have a port. If a reading of the path selects an
    /// uncached route, that route governs, so that no other spelling makes an uncached path
    /// cacheable.
    pub fn select(&self, method: &Method, host: &str, path: &PathReadings<'_>) -> Selection<'_> {
        let first = self.first_match(method, host, (PathForm::Sent, path.sent()));
        if matches!(path, PathReadings::Loosest(_)) && !self.has_loosest_variant {
            return self.selection(first, ReadingAgreement::Unanimous);
        }
        if !self.route(first).rule.cache {
            return self.selection(first, ReadingAgreement::Unanimous);
        }
        let mut agreement = if path.are_fully_decoded() {
            ReadingAgreement::Unanimous
        } else {
            ReadingAgreement::Split
        };
        // The first reading is the path as sent.
        for (form, reading) in path.each().skip(1) {
            let found = self.first_match(method, host, (form, &reading));
            if !self.route(found).rule.cache {
                return self.selection(found, ReadingAgreement::Unanimous);
            }
            if found != first {
                agreement = ReadingAgreement::Split;
            }
        }
        self.selection(first, agreement)
    }

    /// Returns the route that the loosest reading of a path selects. This route governs every
    /// response stored under a spelling of the path.
    pub fn select_loosest(
        &self,
        method: &Method,
        host: &str,
        path: &PathReadings<'_>,
    ) -> Selection<'_> {
        let found = self.first_match(method, host, (PathForm::Loosest, &path.loosest()));
        self.selection(found, ReadingAgreement::Unanimous)
    }

    /// Returns the distinct routes under which responses for a target may be stored: the route of a
    /// `GET` first, then routes that store responses to `QUERY` and `POST`. The loosest reading of
    /// the path selects the routes.
    pub fn select_stored(&self, host: &str, path: &PathReadings<'_>) -> SmallVec<[&Arc<Route>; 1]> {
        let path = path.loosest();
        let find = |method| self.first_match(&method, host, (PathForm::Loosest, &path));
        let mut found: SmallVec<[usize; 3]> = SmallVec::from_slice(&[find(Method::GET)]);
        for method in [Method::QUERY, Method::POST] {
            let reads_by_post = |index| self.route(index).content.reads_by_post();
            let is_query = method == Method::QUERY;
            let index = find(method);
            let stores = if is_query { index < self.routes.len() } else { reads_by_post(index) };
            if stores && !found.contains(&index) {
                found.push(index);
            }
        }
        found.into_iter().map(|index| self.route(index)).collect()
    }

    /// Returns whether a `QUERY` may be cached, given the index of its route. It may if a pattern
    /// selected the route, or if a `GET` of the target selects the fallback route as well.
    pub fn answers_query(&self, index: usize, host: &str, path: &PathReadings<'_>) -> bool {
        index < self.routes.len() || self.select(&Method::GET, host, path).index == index
    }

    /// Returns the distinct routes that the readings of a path select. A write through one spelling
    /// may change responses of all of them.
    pub fn select_each(
        &self,
        method: &Method,
        host: &str,
        path: &PathReadings<'_>,
    ) -> impl Iterator<Item = &Arc<Route>> {
        let found =
            path.each().map(|(form, reading)| self.first_match(method, host, (form, &reading)));
        let found: BTreeSet<usize> = found.collect();
        found.into_iter().map(|index| self.route(index))
    }

    /// Returns the lowest index of a route that satisfies `is_such` and that a reading of the path
    /// selects. Returns `None` if there is no such route.
    pub fn index_among(
        &self,
        method: &Method,
        host: &str,
        path: &PathReadings<'_>,
        is_such: impl Fn(&Route) -> bool,
    ) -> Option<usize> {
        let mut found =
            path.each().map(|(form, reading)| self.first_match(method, host, (form, &reading)));
        found.find(|index| is_such(self.route(*index)))
    }

    /// Returns the index of the first route that matches one reading.
    fn first_match(&self, method: &Method, host: &str, reading: (PathForm, &str)) -> usize {
        let (form, path) = reading;
        let matches = |index: &usize| {
            let pattern = self.routes.get(*index).and_then(|route| route.pattern.as_ref());
            pattern.is_some_and(|pattern| pattern.matches(method, host, reading))
        };
        let found = match form {
            PathForm::Sent => {
                self.sent.candidates(path).iter().copied().find(|index| matches(index))
            }
            PathForm::Loosest => {
                self.loosest.candidates(path).iter().copied().find(|index| matches(index))
            }
            PathForm::Once | PathForm::Twice => (0..self.routes.len()).find(|index| matches(index)),
        };
        found.unwrap_or(self.routes.len())
    }

    fn selection(&self, index: usize, agreement: ReadingAgreement) -> Selection<'_> {
        Selection { index, route: self.route(index), agreement }
    }

    /// Returns the route at an index, or the fallback route if the index is out of range.
    pub fn route(&self, index: usize) -> &Arc<Route> {
        let by_operation = || self.by_operation.get(index.checked_sub(self.routes.len() + 1)?);
        self.routes.get(index).or_else(by_operation).unwrap_or(&self.unmatched)
    }

    /// Returns all routes in the order of their indexes. Includes the fallback route and the routes
    /// of GraphQL operations, which share the names of the original routes.
    pub fn each(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.iter().chain([&self.unmatched]).chain(&self.by_operation)
    }

    /// Returns the same table, with the quarantine state that `state_of` returns for each route.
    #[must_use]
    pub fn with_quarantine(&self, state_of: impl Fn(&Route) -> QuarantineState) -> Self {
        let marked = |route: &Arc<Route>| {
            let quarantine = state_of(route);
            if quarantine == route.quarantine {
                return Arc::clone(route);
            }
            Arc::new(Route { quarantine, ..Route::clone(route) })
        };
        let routes = self.routes.iter().map(marked).collect();
        let by_operation = self.by_operation.iter().map(marked).collect();
        Self { routes, by_operation, unmatched: marked(&self.unmatched), ..self.clone() }
    }

    /// Returns the routes in order, without the fallback route.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Returns the fallback route.
    pub fn unmatched(&self) -> &Arc<Route> {
        &self.unmatched
    }
}

impl Default for RouteTable {
    /// Creates a table without routes: a correct RFC 9111 cache for all requests.
    fn default() -> Self {
        Self::new(Vec::new(), Route::unmatched(CacheRule::default()))
    }
}

/// Returns copies of the routes for operations with their own lifetimes, and the copies' indexes.
fn by_operation(routes: &[Route]) -> (Vec<Arc<Route>>, OperationIndex) {
    let (mut all, mut indexes) = (Vec::new(), HashMap::new());
    for (index, route) in routes.iter().enumerate() {
        let listed = route.graphql.as_ref().and_then(|rule| rule.operations.as_ref());
        for (name, ttl) in listed.into_iter().flatten() {
            let rule = CacheRule { ttl: ttl.over(&route.rule.ttl), ..route.rule.clone() };
            let of_route: &mut BTreeMap<_, _> = indexes.entry(index).or_default();
            of_route.insert(name.clone(), routes.len() + 1 + all.len());
            all.push(Arc::new(Route { rule, ..route.clone() }));
        }
        if listed.is_some_and(BTreeMap::is_empty) {
            indexes.insert(index, BTreeMap::new());
        }
    }
    (all, indexes)
}

impl RouteIndex {
    fn of(routes: &[Route], form: PathForm) -> Self {
        let first_of = |route: &Route| -> Option<Box<str>> {
            route.pattern.as_ref().and_then(|pattern| pattern.first_literal(form)).map(Into::into)
        };
        let mut firsts: Vec<Box<str>> = routes.iter().filter_map(first_of).collect();
        firsts.sort_unstable();
        firsts.dedup();
        let candidates_for = |literal: Option<&str>| -> Box<[usize]> {
            let candidates =
                |route: &Route| first_of(route).is_none_or(|own| Some(&*own) == literal);
            (0..)
                .zip(routes)
                .filter(|(_, route)| candidates(route))
                .map(|(index, _)| index)
                .collect()
        };
        let branches = firsts.into_iter().map(|first| {
            let candidates = candidates_for(Some(&first));
            IndexBranch { first, candidates }
        });
        Self { branches: branches.collect(), others: candidates_for(None) }
    }

    /// Returns the routes that may match a path in this form.
    fn candidates(&self, path: &str) -> &[usize] {
        let (first, _) = first_segment(path.strip_prefix('/').unwrap_or(path).as_bytes());
        let found =
            self.branches.binary_search_by(|branch| branch.first.as_bytes().cmp(first)).ok();
        found
            .and_then(|index| self.branches.get(index))
            .map_or(&self.others, |branch| &branch.candidates)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    fn table(patterns: &[&str]) -> RouteTable {
        let route = |text: &&str| Route {
            name: Arc::from(*text),
            pattern: Some(Pattern::parse(text).unwrap()),
            ..Route::unmatched(CacheRule::default())
        };
        RouteTable::new(
            patterns.iter().map(route).collect(),
            Route::unmatched(CacheRule::default()),
        )
    }

    #[test]
    fn the_first_match_wins() {
        let table = table(&["/a/b", "/{any}/c", "POST /a/**", "/a/**", "h/x", "/"]);
        let select = |method: Method, host: &str, path: &str| {
            table.select(&method, host, &PathReadings::of(path)).route.name.to_string()
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
    fn readings_that_disagree_are_found() {
        let mut routes: Vec<Route> = ["/account/**", "/api/stocks/{symbol}", "/api/**"]
            .iter()
            .map(|text| Route {
                name: Arc::from(*text),
                pattern: Some(Pattern::parse(text).unwrap()),
                ..Route::unmatched(CacheRule::default())
            })
            .collect();
        routes[0].rule.cache = false;
        let table = RouteTable::new(routes, Route::unmatched(CacheRule::default()));
        for (path, name, agreement) in [
            ("/api/stocks/AAPL", "/api/stocks/{symbol}", ReadingAgreement::Unanimous),
            ("/api/stocks/a%20b", "/api/stocks/{symbol}", ReadingAgreement::Unanimous),
            ("/api/stocks/a%2Fb", "/api/stocks/{symbol}", ReadingAgreement::Split),
            ("/API/x", "unmatched", ReadingAgreement::Split),
            ("/api/x/../stocks/a", "/api/**", ReadingAgreement::Split),
            ("/x/%2e%2e/Account/me", "/account/**", ReadingAgreement::Unanimous),
            ("/api/a%25252Fb", "/api/**", ReadingAgreement::Split),
        ] {
            let selection = table.select(&Method::GET, "h", &PathReadings::of(path));
            assert_eq!((&*selection.route.name, selection.agreement), (name, agreement), "{path}");
        }
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
                .find(|text| Pattern::parse(text).unwrap().params((PathForm::Sent, &path)).is_some())
                .copied()
                .unwrap_or(Route::UNMATCHED);
            let index = table.first_match(&Method::GET, "h", (PathForm::Sent, &path));
            prop_assert_eq!(&*table.route(index).name, expected);
        }
    }
}
