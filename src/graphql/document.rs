//! GraphQL documents: their operations, and their canonical text.

use std::collections::BTreeSet;

use apollo_parser::{
    Parser,
    cst::{Definition, OperationDefinition, Selection, SelectionSet},
};
use thiserror::Error;

use super::token::{MAX_TOKENS, canonical_text, has_name};

/// Maximum depth of selections and values. The introspection queries of common tools have depth 13.
const MAX_DEPTH: usize = 64;

/// An executable document that all servers read alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    text: Box<str>,
    operations: Box<[Operation]>,
    is_introspection: bool,
}

/// One operation of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    /// Name of the operation; `None` for an anonymous operation, the only one in its document.
    pub(crate) name: Option<Box<str>>,
    pub(crate) kind: OperationKind,
    /// Whether the operation may select a field other than `__typename`, which every type has.
    pub(crate) has_effect: bool,
}

/// The kinds of operations (GraphQL §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperationKind {
    Query,
    Mutation,
    Subscription,
}

/// Why a document is not understood. Servers reject most such documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum UnreadableDocument {
    /// The document has too many tokens, or a malformed token.
    #[error("malformed or too long")]
    Tokens,
    /// The document does not follow the grammar, or is nested too deeply.
    #[error("not a GraphQL document")]
    Syntax,
    /// The document defines types or directives.
    #[error("it defines types")]
    NotExecutable,
    /// Two operations have the same name, or one of several operations has no name (GraphQL §5.2).
    #[error("operations with the same name, or without one")]
    AmbiguousOperations,
    /// The document has no operation.
    #[error("no operation")]
    NoOperation,
}

impl Document {
    /// Parses a document. Takes about 20 µs for each KiB.
    pub(crate) fn parse(document: &str) -> Result<Self, UnreadableDocument> {
        let text = canonical_text(document).map_err(|_| UnreadableDocument::Tokens)?;
        let operations = operations(&text)?;
        let is_introspection = has_name(&text, &["__schema", "__type"]);
        Ok(Self { text: text.into(), operations: operations.into(), is_introspection })
    }

    /// Returns the canonical text: the tokens of the document.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the operations in order.
    pub(crate) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Returns whether the document asks for the schema instead of data (GraphQL §4).
    pub(crate) fn is_introspection(&self) -> bool {
        self.is_introspection
    }

    /// Returns the operation that a server executes (GraphQL §6.1), or `None` if the server rejects
    /// the request: no operation has this name, or the request names none of several operations.
    pub(crate) fn operation(&self, name: Option<&str>) -> Option<&Operation> {
        match (name, &*self.operations) {
            (None, [operation]) => Some(operation),
            (None, _) => None,
            (Some(_), operations) => operations.iter().find(|it| it.name.as_deref() == name),
        }
    }
}

/// Returns the operations of a canonical text.
fn operations(text: &str) -> Result<Vec<Operation>, UnreadableDocument> {
    let tree = Parser::new(text).recursion_limit(MAX_DEPTH).token_limit(MAX_TOKENS).parse();
    if tree.errors().next().is_some() {
        return Err(UnreadableDocument::Syntax);
    }
    let (mut definitions, mut fragments) = (Vec::new(), Selected::default());
    for definition in tree.document().definitions() {
        match definition {
            Definition::FragmentDefinition(fragment) => {
                fragments = fragments.or(Selected::by(fragment.selection_set()));
            }
            Definition::OperationDefinition(definition) => definitions.push(definition),
            _ => return Err(UnreadableDocument::NotExecutable),
        }
    }
    let operations: Vec<Operation> =
        definitions.iter().map(|definition| operation(definition, fragments)).collect();
    let names: BTreeSet<&str> = operations.iter().filter_map(|it| it.name.as_deref()).collect();
    match operations.len() {
        0 => Err(UnreadableDocument::NoOperation),
        1 => Ok(operations),
        count if names.len() == count => Ok(operations),
        _ => Err(UnreadableDocument::AmbiguousOperations),
    }
}

fn operation(definition: &OperationDefinition, fragments: Selected) -> Operation {
    let kind = match definition.operation_type() {
        None => OperationKind::Query,
        Some(kind) if kind.mutation_token().is_some() => OperationKind::Mutation,
        Some(kind) if kind.query_token().is_some() => OperationKind::Query,
        Some(_) => OperationKind::Subscription,
    };
    let name = definition.name().map(|name| name.text().as_str().into());
    let selected = Selected::by(definition.selection_set());
    let has_effect = selected.data || (selected.fragments && fragments.data);
    Operation { name, kind, has_effect }
}

/// The kinds of fields that a selection set selects, including inline fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Selected {
    /// Whether the set selects a field other than `__typename`.
    data: bool,
    /// Whether the set selects a fragment that is defined elsewhere.
    fragments: bool,
}

impl Selected {
    fn by(selections: Option<SelectionSet>) -> Self {
        let selections = selections.into_iter().flat_map(|it| it.selections());
        selections.fold(Self::default(), |found, selection| match selection {
            Selection::Field(field) => {
                let is_data = field.name().is_none_or(|name| name.text() != "__typename");
                Self { data: found.data | is_data, ..found }
            }
            Selection::FragmentSpread(_) => Self { fragments: true, ..found },
            Selection::InlineFragment(fragment) => found.or(Self::by(fragment.selection_set())),
        })
    }

    fn or(self, other: Self) -> Self {
        Self { data: self.data | other.data, fragments: self.fragments | other.fragments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Document {
        Document::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn kind(text: &str, name: Option<&str>) -> Option<OperationKind> {
        parsed(text).operation(name).map(|operation| operation.kind)
    }

    #[test]
    fn the_operation_is_chosen_by_its_name() {
        const BOTH: &str =
            "query A { a } mutation B { b } subscription C { c } fragment F on T {d}";
        assert_eq!(kind(BOTH, Some("A")), Some(OperationKind::Query));
        assert_eq!(kind(BOTH, Some("B")), Some(OperationKind::Mutation));
        assert_eq!(kind(BOTH, Some("C")), Some(OperationKind::Subscription));
        assert_eq!(kind(BOTH, Some("F")), None);
        assert_eq!(kind(BOTH, None), None);
        assert_eq!(kind("{ a }", None), Some(OperationKind::Query));
        assert_eq!(kind("{ a }", Some("A")), None);
        assert_eq!(kind("mutation{query}", None), Some(OperationKind::Mutation));
        assert_eq!(kind("query mutation { a }", Some("mutation")), Some(OperationKind::Query));
        assert_eq!(kind("mutation query { a }", Some("query")), Some(OperationKind::Mutation));
    }

    #[test]
    fn an_operation_that_asks_for_type_names_only_has_no_effect() {
        for (text, expected) in [
            ("mutation{__typename}", false),
            (
                "mutation { a: __typename ... on Mutation { __typename } ...F } fragment F on M {__typename ...F}",
                false,
            ),
            ("mutation { __typename a }", true),
            ("mutation { __typename: a }", true),
            ("mutation { ... { a } }", true),
            ("mutation { ...F } fragment F on M { ...G } fragment G on M { a }", true),
            ("mutation { ...F } fragment F on M { __typename } fragment G on M { a }", true),
            ("mutation { __typename } fragment G on M { a }", false),
        ] {
            assert_eq!(parsed(text).operations()[0].has_effect, expected, "{text}");
        }
    }

    #[test]
    fn a_document_that_is_in_doubt_is_refused() {
        for (text, error) in [
            ("", UnreadableDocument::Syntax),
            ("{", UnreadableDocument::Syntax),
            ("{}", UnreadableDocument::Syntax),
            ("query A { a } }", UnreadableDocument::Syntax),
            ("Mutation { a }", UnreadableDocument::Syntax),
            ("\"text\" query A { a }", UnreadableDocument::Syntax),
            ("fragment F($x: Int) on T { a }", UnreadableDocument::Syntax),
            ("type A { a: Int } query B { a }", UnreadableDocument::NotExecutable),
            ("extend type A { a: Int } query B { a }", UnreadableDocument::NotExecutable),
            ("fragment F on T { a }", UnreadableDocument::NoOperation),
            ("{ a } mutation B { b }", UnreadableDocument::AmbiguousOperations),
            ("query A { a } mutation A { b }", UnreadableDocument::AmbiguousOperations),
            ("{ a } { b }", UnreadableDocument::AmbiguousOperations),
            ("{ a(s: \"\n\") }", UnreadableDocument::Tokens),
            ("{ a } é", UnreadableDocument::Tokens),
        ] {
            assert_eq!(Document::parse(text), Err(error), "{text}");
        }
        let deep = format!("{}a{}", "{a".repeat(MAX_DEPTH * 4), "}".repeat(MAX_DEPTH * 4));
        assert_eq!(Document::parse(&deep), Err(UnreadableDocument::Syntax));
    }

    #[test]
    fn a_request_for_the_schema_is_known_however_it_is_written() {
        for text in [
            "{ __schema { types { name } } }",
            "{ s: __schema { types { name } } a }",
            "query A { ...F } fragment F on Query { __type(name: \"A\") { name } }",
        ] {
            assert!(parsed(text).is_introspection(), "{text}");
        }
        for text in ["{ a __typename }", "{ a(s: \"__schema\") }", "{ a # __schema\n }"] {
            assert!(!parsed(text).is_introspection(), "{text}");
        }
    }
}
