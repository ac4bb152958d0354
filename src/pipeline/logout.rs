//! Logout: what it ends, by the credentials that came with it.

use super::{
    accepted,
    credentials::{self, Asking},
    site::Site,
};
use crate::{fence::Selector, user::Member};

/// Credentials in one logout of which each combination is ended: each doubles what is written.
const MOST: usize = 4;

/// What a logout ends: all that belongs to the user, and what was noted of the credentials that came. Of a
/// token that names no user only the latter.
///
/// Exact credentials belong together as they are sent. A browser sends a logout more of them than other
/// requests (a cookie whose path is that of the logout), so each combination of those that came is ended.
pub fn selectors(site: &Site, asking: &Asking<'_>) -> Vec<Selector> {
    if !site.users.are_verified() {
        return logins(site, asking).iter().flat_map(all_of).collect();
    }
    match credentials::writer(site, asking) {
        // A gateway names its user again after the next login, in the same words.
        Some(member) if !site.users.end_with_logout() => owned(&member).into_iter().collect(),
        Some(member) => all_of(&member).collect(),
        None => {
            let holder = credentials::holder(site, asking);
            holder.as_deref().map(credential).into_iter().collect()
        }
    }
}

fn all_of(member: &Member) -> impl Iterator<Item = Selector> + use<> {
    owned(member).into_iter().chain([credential(member)])
}

fn owned(member: &Member) -> Option<Selector> {
    member.owner.as_ref().map(|owner| Selector::User(Box::from(&**owner)))
}

fn credential(member: &Member) -> Selector {
    Selector::Credential(accepted::credential(member).into())
}

/// The members by each combination of the credentials that came; where these are very many, by all of them
/// and by each.
fn logins(site: &Site, asking: &Asking<'_>) -> Vec<Member> {
    let pieces = credentials::login_pieces(site, asking);
    let count = pieces.len();
    let combinations = if count <= MOST {
        (1..1_u64 << count).collect()
    } else {
        let each = (0..count.min(63)).map(|place| 1 << place);
        [u64::MAX].into_iter().chain(each).collect::<Vec<u64>>()
    };
    let is_in = |combination: u64, place: usize| combination >> place.min(63) & 1 == 1;
    let login = |combination| {
        let chosen = pieces.iter().enumerate().filter(|(place, _)| is_in(combination, *place));
        credentials::login_of(site, chosen.map(|(_, piece)| *piece).collect())
    };
    combinations.into_iter().map(login).collect()
}
