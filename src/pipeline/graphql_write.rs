//! GraphQL mutations: what they have changed, according to their responses.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    credentials, graphql_response, payload::PayloadError, request_context::RequestContext,
};
use crate::{
    graphql::{Entities, WrittenOperation, has_no_effect},
    key::uri::PathReadings,
    origin::ResponseBody,
    route::{PurgeByResponse, Route},
    store::Store,
};

/// What a mutation has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MutationEffect {
    /// The tags of the responses that the mutation invalidates.
    pub tags: Vec<String>,
    /// Whether the mutation may have changed anything, because neither its response nor the route
    /// says what.
    pub is_unknown: bool,
    /// Whether the mutation has surely changed nothing.
    pub is_none: bool,
}

impl MutationEffect {
    fn none() -> Self {
        Self { is_none: true, ..Self::default() }
    }
}

impl<S: Store> RequestContext<S> {
    /// Returns what a write on a GraphQL route has changed; `None` on other routes. Reads the body
    /// of a successful response before the client receives it.
    pub(super) async fn mutation_effect(
        &self,
        response: &mut Response<ResponseBody>,
    ) -> Option<MutationEffect> {
        let route = self.config.route(self.route);
        route.graphql.as_ref()?;
        if self.safety.is_found_to_read(self.presence) {
            return Some(MutationEffect::none());
        }
        let status = response.status();
        let document = if status.is_success() {
            graphql_response::read(&self.pipeline.parsing, response).await
        } else {
            Err(PayloadError::Excluded)
        };
        let writer = credentials::writer(&self.config, &self.identity_inputs());
        let user = writer.as_deref().and_then(|writer| writer.user.as_deref());
        let uri = &self.request.uri;
        let target = (&PathReadings::of(uri.path()), (uri.query(), user));
        Some(effect_of(route, target, (self.safety.written(), (status, document))))
    }
}

/// Maximum number of mutations in one request whose effects are read from the response. Each effect
/// takes one pass over the response.
const MAX_MUTATIONS: usize = 32;

/// The path of a request, its query and its user.
type Target<'a> = (&'a PathReadings<'a>, (Option<&'a str>, Option<&'a str>));

/// The status of a response, and its JSON or why it cannot be read.
type ReadResponse = (StatusCode, Result<Value, PayloadError>);

/// Returns what mutations have changed, according to their response.
pub(super) fn effect_of(
    route: &Route,
    target: Target<'_>,
    (written, (status, document)): (&[WrittenOperation], ReadResponse),
) -> MutationEffect {
    if !status.is_success() {
        return MutationEffect::none();
    }
    let Some(document) = document.ok().filter(|_| written.len() <= MAX_MUTATIONS) else {
        return MutationEffect { is_unknown: true, ..MutationEffect::default() };
    };
    let unnamed = [WrittenOperation::default()];
    let written = if written.is_empty() { &unnamed } else { written };
    let mut effect = MutationEffect::none();
    for operation in written {
        let response = operation.position.map_or(Some(&document), |at| document.get(at));
        if response.is_some_and(has_no_effect) {
            continue;
        }
        effect.is_none = false;
        match response.and_then(|response| changed(route, target, (operation, response))) {
            Some(tags) => effect.tags.extend(tags),
            None => effect.is_unknown = true,
        }
    }
    effect.tags.sort_unstable();
    effect.tags.dedup();
    effect
}

/// Returns the tags of the objects that one mutation has changed; `None` if they are unknown.
fn changed(
    route: &Route,
    target: Target<'_>,
    (operation, response): (&WrittenOperation, &Value),
) -> Option<Vec<String>> {
    let rule = route.graphql.as_deref()?;
    if operation.name.is_none() && !rule.purge_by_operation.is_empty() {
        // The unnamed operation may be one that the route lists.
        return None;
    }
    if let Some(templates) =
        operation.name.as_ref().and_then(|name| rule.purge_by_operation.get(name))
    {
        let variables = operation.variables.as_deref().unwrap_or("null");
        let variables: Value = serde_json::from_str(variables).ok()?;
        let document = json!({ "variables": variables, "data": response.get("data") });
        return route.tags_with_json(templates, target, &document).ok();
    }
    let entities = Entities::of(response);
    match rule.purge_by_response {
        PurgeByResponse::Nothing => Some(Vec::new()),
        // If a response has types but no objects, the types belong to results that wrap objects.
        _ if entities.objects.is_empty() => None,
        PurgeByResponse::Objects => Some(entities.object_tags().collect()),
        PurgeByResponse::Types => {
            Some(entities.type_tags().chain(entities.object_tags()).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        policy::CacheRule,
        route::{AnyTagTemplate, GraphqlRule, Pattern, PlaceholderNames},
    };

    fn route(purge_by_response: PurgeByResponse) -> Route {
        let pattern = Pattern::parse("/graphql").unwrap();
        let tag =
            AnyTagTemplate::parse("Product:{$.variables.id}", PlaceholderNames::of_path(&pattern));
        let mut rule = GraphqlRule { purge_by_response, ..GraphqlRule::default() };
        rule.purge_by_operation.insert("drop".into(), Box::from([tag.unwrap()]));
        let graphql = Some(Arc::new(rule));
        Route { pattern: Some(pattern), graphql, ..Route::unmatched(CacheRule::default()) }
    }

    fn of(
        purge_by_response: PurgeByResponse,
        written: &[WrittenOperation],
        document: Result<Value, PayloadError>,
    ) -> (String, bool, bool) {
        let path = PathReadings::of("/graphql");
        let route = route(purge_by_response);
        let response = (StatusCode::OK, document);
        let effect = effect_of(&route, (&path, (None, None)), (written, response));
        (effect.tags.join(" "), effect.is_unknown, effect.is_none)
    }

    fn named(name: &str, variables: &str, position: Option<usize>) -> WrittenOperation {
        let (name, variables) = (Some(name.into()), Some(variables.into()));
        WrittenOperation { name, variables, position }
    }

    #[test]
    fn the_objects_of_a_response_and_their_types_have_changed() {
        use PurgeByResponse::{Nothing, Objects, Types};
        let product = json!({ "data": { "a": { "__typename": "Product", "id": 7 } } });
        for (mode, tags) in
            [(Types, "Product:7 type:Product"), (Objects, "Product:7"), (Nothing, "")]
        {
            assert_eq!(
                of(mode, &[named("add", "{}", None)], Ok(product.clone())),
                (tags.into(), false, false)
            );
        }
        let wrapper = json!({ "data": { "a": { "__typename": "Result" }, "b": true } });
        for (mode, is_unknown) in [(Types, true), (Objects, true), (Nothing, false)] {
            assert_eq!(
                of(mode, &[named("add", "{}", None)], Ok(wrapper.clone())),
                (String::new(), is_unknown, false)
            );
        }
        assert_eq!(of(Types, &[], Err(PayloadError::TooLong)), (String::new(), true, false));
    }

    #[test]
    fn many_mutations_and_those_without_a_name_may_have_changed_anything() {
        let product = json!({ "data": { "a": { "__typename": "Product", "id": 7 } } });
        let many: Vec<_> = (0..=MAX_MUTATIONS).map(|_| named("add", "{}", None)).collect();
        let unknown = (String::new(), true, false);
        assert_eq!(of(PurgeByResponse::Types, &many, Ok(product.clone())), unknown);
        let unnamed = [WrittenOperation::default()];
        assert_eq!(of(PurgeByResponse::Types, &unnamed, Ok(product)), unknown);
    }

    #[test]
    fn a_failed_mutation_has_changed_nothing() {
        let failure = json!({ "data": { "a": null }, "errors": [{}] });
        assert_eq!(of(PurgeByResponse::Types, &[], Ok(failure)), (String::new(), false, true));
    }

    #[test]
    fn a_listed_mutation_purges_its_own_tags() {
        let drop = |id: &str, position| named("drop", &format!("{{\"id\":{id}}}"), position);
        let done = json!({ "data": { "a": true } });
        let types = PurgeByResponse::Types;
        let one = of(types, &[drop("5", None)], Ok(done.clone()));
        assert_eq!(one, ("Product:5".into(), false, false));
        let batch = [drop("5", Some(0)), drop("6", Some(1)), named("add", "{}", Some(2))];
        let failed = json!({ "errors": [{}] });
        let added = json!({ "data": { "a": { "__typename": "Product", "id": 9 } } });
        let answers = json!([done, failed, added]);
        let found = of(types, &batch, Ok(answers));
        assert_eq!(found, ("Product:5 Product:9 type:Product".into(), false, false));
        let short = of(types, &batch, Ok(json!([done])));
        assert_eq!(short, ("Product:5".into(), true, false), "what has no answer is not known");
    }
}
