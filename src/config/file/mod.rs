//! `proxy.toml` as text: its keys, its serde structs, and reading it. Nothing of TOML leaves here.

mod at;
mod events;
mod mask;
mod read;
mod routing;
mod section;
mod shape;
mod test;
mod timing;
mod user;
mod webhook;

pub(super) use at::{At, Text, Texts};
pub(super) use events::EventsTable;
pub(super) use mask::{masked, masked_url};
pub(super) use read::read;
pub(super) use routing::{
    BypassTable, DefaultsTable, QueryTable, RouteSection, TierTable, TtlValue, VaryTable,
};
pub(super) use section::{
    AdminTable, File, LimitsTable, LogTable, OriginTable, OriginTlsTable, StoreTable,
    StoreTlsTable, TlsTable, TokenTable,
};
pub(super) use test::{Fields, TestResponse, TestSection};
pub(super) use timing::{PollSection, ScheduleSection, WarmValue};
pub(super) use user::{GatewayTable, JwtTable, UserTable};
pub(super) use webhook::{WebhookRule, WebhookSection, When};
