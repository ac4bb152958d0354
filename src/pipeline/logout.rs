//! Logout: what a logout ends, according to the credentials of its request.

use super::{
    config_snapshot::ConfigSnapshot,
    credentials::{self, IdentityInputs},
};
use crate::{fence::Selector, user::PartitionMember};

/// Maximum number of credentials for which a logout ends every combination. Each credential doubles
/// the number of selectors.
const MAX_COMBINED: usize = 4;

/// Returns the selectors of what a logout ends: all responses of the user, and the acceptance of
/// the credentials. If a token names no user, only the acceptance ends.
///
/// Unless identities are configured, a request's credentials together identify its member. A
/// browser may send more of them with a logout than with other requests (such as a cookie limited
/// to the logout's path), so every combination is ended.
pub(super) fn selectors(config: &ConfigSnapshot, inputs: &IdentityInputs<'_>) -> Vec<Selector> {
    if !config.users.is_configured() {
        return logins(config, inputs).iter().flat_map(selectors_of).collect();
    }
    match credentials::writer(config, inputs) {
        // After the next login, a gateway names its user with the same field value.
        Some(member) if !config.users.end_at_logout() => {
            user_selector(&member).into_iter().collect()
        }
        Some(member) => selectors_of(&member).collect(),
        None => {
            let holder = credentials::holder(config, inputs);
            holder.as_deref().map(credential_selector).into_iter().collect()
        }
    }
}

fn selectors_of(member: &PartitionMember) -> impl Iterator<Item = Selector> + use<> {
    user_selector(member).into_iter().chain([credential_selector(member)])
}

fn user_selector(member: &PartitionMember) -> Option<Selector> {
    member.owner.as_ref().map(|owner| Selector::User(Box::from(&**owner)))
}

fn credential_selector(member: &PartitionMember) -> Selector {
    Selector::Credential(member.credential_name().into())
}

/// Returns a member for each combination of the credentials. If there are many credentials, returns
/// one member for all credentials together and one for each credential.
fn logins(config: &ConfigSnapshot, inputs: &IdentityInputs<'_>) -> Vec<PartitionMember> {
    let pieces = credentials::login_credentials(config, inputs);
    let count = pieces.len();
    let combinations = if count <= MAX_COMBINED {
        (1..1_u64 << count).collect()
    } else {
        let each = (0..count.min(63)).map(|place| 1 << place);
        [u64::MAX].into_iter().chain(each).collect::<Vec<u64>>()
    };
    let is_in = |combination: u64, place: usize| combination >> place.min(63) & 1 == 1;
    let login = |combination| {
        let chosen = pieces.iter().enumerate().filter(|(place, _)| is_in(combination, *place));
        credentials::member_of_login(config, chosen.map(|(_, piece)| *piece).collect())
    };
    combinations.into_iter().map(login).collect()
}
