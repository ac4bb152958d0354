//! The text of `proxy.toml`: its keys, serde structs and parser. TOML types stay in this folder.

mod events;
mod located;
mod mask;
mod read;
mod routing;
mod schedules;
mod section;
mod shape;
mod test;
mod user;
mod webhook;

pub(super) use events::EventsTable;
pub(super) use located::{Located, Text, Texts};
pub(super) use mask::masked;
pub(crate) use mask::masked_url;
pub(super) use read::read;
pub(super) use routing::{
    BypassTable, CompareTable, DefaultsTable, QueryTable, RouteSection, TierTable, TtlValue,
    VaryTable,
};
pub(super) use schedules::{PollSection, ScheduleSection, WarmValue};
pub(super) use section::{
    AdminTable, ConfigFile, LimitsTable, LogTable, OriginTable, OriginTlsTable, StoreTable,
    StoreTlsTable, TlsTable, TokenTable,
};
pub(super) use test::{HeaderFields, TestResponse, TestSection};
pub(super) use user::{GatewayTable, JwtTable, UserTable};
pub(super) use webhook::{WebhookRule, WebhookSection, When};
