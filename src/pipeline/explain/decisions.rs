//! The decisions about a request before the cache lookup, in order.

use super::{
    advice,
    explanation::{ExplainedDecision, ExplainedOutcome},
    request::PlannedRequest,
};
use crate::{
    field::presence::FieldPresence,
    pipeline::receive::RequestAction,
    policy::Reason,
    route::{NotKeyed, QuarantineState},
};

impl PlannedRequest<'_> {
    pub(super) fn decisions(&self) -> Vec<ExplainedDecision> {
        let reason = self.reason();
        let settled = reason.and_then(|reason| self.settled_by(reason));
        let mut decisions = Vec::new();
        for (index, step) in self.steps() {
            if Some(index) == settled {
                let reason = reason.map(Reason::as_str);
                decisions.push(ExplainedDecision {
                    question: step.question,
                    answer: step.if_final.to_owned(),
                    reason,
                });
                return decisions;
            }
            let answer = step.if_continued.to_owned();
            decisions.push(ExplainedDecision { question: step.question, answer, reason: None });
        }
        decisions
    }

    /// Returns the steps in order of evaluation: tokens are verified before cookies are inspected.
    fn steps(&self) -> impl Iterator<Item = (usize, &'static DecisionRule)> {
        let needs_identity = self.matched_route().rule.partition.needs_identity();
        let is_verified = needs_identity && self.config.users.is_configured();
        let is_by_body = self.is_by_body();
        let order = move |index: usize| match index {
            COOKIES if is_verified => IDENTITY,
            IDENTITY if is_verified => COOKIES,
            PLAIN if is_by_body => READ_BY_BODY,
            other => other,
        };
        let is_open = self.matched_route().quarantine == QuarantineState::Open;
        let count = if is_by_body { BODY_SIZE + 1 } else { BODY_SIZE };
        let graphql = self.matched_route().graphql.as_ref().map(|_| GRAPHQL);
        let before = (0..COOKIES).filter(move |index| *index != QUARANTINE || !is_open);
        let steps = before.chain(graphql).chain(COOKIES..count);
        steps.map(order).filter_map(|index| Some((index, STEPS.get(index)?)))
    }

    /// Returns whether the body of requests with this method can be part of the key.
    fn is_by_body(&self) -> bool {
        let (method, headers) = (self.request.method(), self.request.headers());
        self.matched_route().content.form(method, headers) != Err(NotKeyed::Method)
    }

    /// Returns the index of the step that yields this reason.
    fn settled_by(&self, reason: Reason) -> Option<usize> {
        let is_overridden =
            reason == Reason::AmbiguousTarget && self.presence.has(FieldPresence::OVERRIDE);
        let mut steps = STEPS.iter().enumerate().filter(|(_, step)| step.reasons.contains(&reason));
        match steps.next() {
            Some(_) if reason == Reason::AmbiguousTarget && !is_overridden => steps.next(),
            first => first,
        }
        .map(|(index, _)| index)
    }

    pub(super) fn outcome(&self) -> ExplainedOutcome {
        let outcome = match &self.action {
            RequestAction::Loop | RequestAction::Misdirected | RequestAction::AskForDocument(_) => {
                "refused"
            }
            RequestAction::Pass(_) => "pass",
            RequestAction::Lookup(_) | RequestAction::ReadContent(_) => "lookup",
            RequestAction::Refresh(_) => "refresh",
            RequestAction::Shadow(_) => "shadow",
        };
        let means = match (&self.action, self.reason()) {
            (RequestAction::Lookup(_), _) | (_, None) => "The cache may respond.".to_owned(),
            (RequestAction::Refresh(_), _) => {
                "The cache is bypassed; the origin's response replaces the stored one.".to_owned()
            }
            (_, Some(reason)) => reason.description().to_owned(),
        };
        let reason = self.reason();
        let advice = reason.and_then(|reason| advice::advice_on(reason, &self.config.users));
        ExplainedOutcome { outcome, reason: reason.map(Reason::as_str), means, advice }
    }
}

/// A decision of `receive::plan`.
struct DecisionRule {
    question: &'static str,
    /// The answer if the next step follows this one.
    if_continued: &'static str,
    /// The answer if this step is final.
    if_final: &'static str,
    reasons: &'static [Reason],
}

const fn step(
    question: &'static str,
    [if_continued, if_final]: [&'static str; 2],
    reasons: &'static [Reason],
) -> DecisionRule {
    DecisionRule { question, if_continued, if_final, reasons }
}

/// All decisions before the lookup. A test checks that they have the same order as in the plan.
const STEPS: [DecisionRule; 15] = [
    step("Is the host served?", ["yes", "no"], &[Reason::Misdirected]),
    step("Has the request passed through this node before?", ["no", "yes"], &[Reason::Loop]),
    step("Is it a GET or HEAD without a body?", ["yes", "no"], &[Reason::MethodNotCacheable]),
    step("Does it request another protocol?", ["no", "yes"], &[Reason::Upgrade]),
    step("Does a header override the method or target?", ["no", "yes"], &[Reason::AmbiguousTarget]),
    step(
        "Does it have a condition that only the origin can evaluate?",
        ["no", "yes"],
        &[Reason::Precondition],
    ),
    step("Does the route cache, and does no `bypass` match?", ["yes", "no"], &[Reason::RuleBypass]),
    step(
        "Is the route quarantined?",
        ["no", "yes, or not known yet"],
        &[Reason::Quarantined, Reason::Unsynced],
    ),
    step(
        "Do all readings of the path select the same route?",
        ["yes", "no"],
        &[Reason::AmbiguousTarget],
    ),
    step("Do all servers parse the cookies alike?", ["yes", "no"], &[Reason::AmbiguousCookie]),
    step(
        "Is the owner of the response known?",
        ["yes", "no"],
        &[Reason::NoIdentity, Reason::UnverifiedToken],
    ),
    step(
        "Does it carry a credential outside the partition?",
        ["no", "yes"],
        &[Reason::SecondCredential],
    ),
    step("Is its body too large for a key?", ["no", "yes"], &[Reason::BodyKeyTooLarge]),
    step("Does the route read such requests by their body?", ["yes", "no"], &[Reason::BodyNotJson]),
    step(
        "Is it one GraphQL query, of an operation that is cached?",
        ["yes", "no"],
        &[
            Reason::GraphqlMutation,
            Reason::GraphqlSubscription,
            Reason::GraphqlIntrospection,
            Reason::GraphqlBatch,
            Reason::GraphqlUnknownDocument,
            Reason::GraphqlUnclear,
            Reason::GraphqlOperation,
        ],
    ),
];

/// The index of the quarantine step, which is shown only if it is final.
const QUARANTINE: usize = 7;

/// The index of the cookie step. The partition decides whether it precedes or follows [`IDENTITY`].
const COOKIES: usize = 9;
const IDENTITY: usize = 10;

/// The index of the step for requests without a body. If the body is part of the key, the step
/// `READ_BY_BODY` replaces it, and the step `BODY_SIZE` follows.
const PLAIN: usize = 2;
const BODY_SIZE: usize = 12;
const READ_BY_BODY: usize = 13;

/// The index of the step that precedes the cookie step on GraphQL routes.
const GRAPHQL: usize = 14;
