//! The items that the integration tests and the fuzz targets use. Not a public interface.

#![allow(missing_docs, reason = "the items are documented where they are defined")]

pub mod advise {
    pub use crate::advise::{AdviceOptions, Advisor, ProposedTable};
}
pub mod app {
    pub use crate::app::{Explainer, Node, NodeDependencies, Workers, run_tests};
}
pub mod cli {
    pub use crate::cli::Cli;
    pub mod check {
        pub use crate::cli::check::summary;
    }
    pub mod shadow {
        pub use crate::cli::shadow::text;
    }
}
pub mod config {
    pub use crate::config::{CliOverrides, Config, Environment};
}
pub mod entry {
    pub use crate::entry::Entry;
    pub mod codec {
        pub use crate::entry::codec::{DecodedHead, EncodeOptions, EncodedEntry, decode, encode};
    }
}
pub mod feed {
    pub use crate::feed::{Caller, CorsOrigins, Feed, LogUpdate, Settings, TagPattern};
}
pub mod fence {
    pub use crate::fence::{
        Fence, FenceStamp, LogId, Purge, PurgeCandidate, PurgeMode, PurgeRecord, PurgeSource,
        PurgeTable, PurgeVerdict, ResponseAttributes, Selector, credential_tag,
    };
}
pub mod field {
    pub use crate::field::Timestamp;
    pub mod hop {
        pub use crate::field::hop::remove_listed;
    }
    pub mod identity {
        pub use crate::field::identity::{
            CREDENTIAL_WORDS, ENDINGS, HARMLESS, NAMES, TENANT_WORDS,
        };
    }
    pub mod range {
        pub use crate::field::range::{ContentRange, RangeRequest};
    }
}
pub mod forward {
    pub use crate::forward::{RequestSource, ViaIdentity};
    pub mod request {
        pub use crate::forward::request::{fields, is_upgrade};
    }
    pub mod response {
        pub use crate::forward::response::headers;
    }
}
pub mod graphql {
    #[cfg(fuzzing)]
    pub mod fuzzed {
        pub use crate::graphql::fuzzed::{canonical_document, canonical_query, canonical_request};
    }
}
pub mod key {
    pub use crate::key::{CacheKey, DigestKey, OriginTarget};
    pub mod uri {
        pub use crate::key::uri::{
            NamePattern, PathReadings, QueryOrder, QueryRule, Scheme, normal_path,
        };
        pub mod host {
            pub use crate::key::uri::host::canonical;
        }
    }
}
pub mod origin {
    pub use crate::origin::{
        ConnectionLimits, Origin, OriginError, OriginRequest, RequestBody, ResponseBody, ServerUrl,
        Settings, UploadFailure,
    };
    #[cfg(fuzzing)]
    pub mod fuzzed {
        pub use crate::origin::fuzzed::{ResponseLength, chunked, head};
    }
    pub mod settings {
        pub use crate::origin::settings::{HealthCheck, HostHeader, OriginTls};
    }
    pub mod upgrade {
        pub use crate::origin::upgrade::join;
    }
}
pub mod parsing {
    pub use crate::parsing::{NotCanonical, canonical};
}
pub mod pipeline {
    pub use crate::pipeline::Clock;
    pub mod explain {
        pub use crate::pipeline::explain::{ExplainRequest, ExplainRequestResponse};
    }
}
pub mod policy {
    pub use crate::policy::{
        CacheRule, Credentials, Partition, RequestDirectives, RequestHead, ResponseDirectives,
        ResponseHead, reuse, storable, stored_fields,
    };
    pub mod cache_status {
        pub use crate::policy::cache_status::CacheResult;
    }
    pub mod credentials {
        pub use crate::policy::credentials::{
            CREDENTIAL_PARAMETERS, FORGERY_PARTS, HARMLESS_COOKIES, SELECTING_COOKIES,
            SESSION_COOKIES, SESSION_ENDS, SESSION_PARTS, SIGNATURE_PARAMETERS,
        };
    }
    pub mod directive {
        pub use crate::policy::directive::MAX_DELTA_SECONDS;
    }
    pub mod reason {
        pub use crate::policy::reason::Reason;
    }
}
pub mod purge {
    pub use crate::purge::{
        Acknowledgement, AppliedPurges, DedupOutcome, IncompleteResponse, LogEvent, LogEvents,
        LogRetention, LogUnavailable, PurgeLog, PurgeReceipt, RedisLogSettings, SyncState,
        TailState, UnsyncedPolicy, WatermarkRaise,
    };
    #[cfg(fuzzing)]
    pub mod fuzzed {
        pub use crate::purge::fuzzed::read;
    }
    pub mod planted {
        pub use crate::purge::planted::PlantedBug;
    }
}
pub mod redis {
    pub use crate::redis::{RedisConnector, Settings, TlsSettings};
}
pub mod server {
    pub use crate::body_file::{BodyFile, BodyFiles, FileTurn};
    pub use crate::server::{
        BoundAddress, ClientBodyError, Connection, Declined, Deferrer, Drain, FastPathMode,
        Handler, ImmediateResponder, Incoming, LimitedBody, Listener, ListenerCounters,
        PlainRequest, ResponseBatch, Settings, serve,
    };
    #[cfg(fuzzing)]
    pub mod fuzzed {
        pub use crate::server::fuzzed::{count, fast_requests, heads, serve_connection};
    }
    pub mod tls {
        pub use crate::server::tls::{Certificates, server_config};
    }
}
pub mod telemetry {
    pub use crate::telemetry::Metrics;
}
pub mod trigger {
    pub mod webhook {
        pub use crate::trigger::webhook::{DEFAULT_TOLERANCE, Delivery, SignatureScheme, Vendor};
    }
}
pub mod user {
    pub use crate::user::{
        Authenticator, IdentitySource, KeySource, PartitionMember, TokenKeys, TokenLocation,
        TokenRules,
    };
    pub mod jwt {
        pub use crate::user::jwt::Jwt;
        pub mod key {
            pub use crate::user::jwt::key::VerificationKey;
        }
    }
}
