//! Layouts of what opens a connection: ApiVersions, SaslHandshake, SaslAuthenticate.

use super::Kind::{Array, Bool, Bytes, I16, I32, I64, NullStr, Str, Struct};
use super::{Direction, Field, Layout, NEVER, field};

pub(super) static API_VERSIONS_REQUEST: Layout = Layout {
    message: "ApiVersions",
    direction: Direction::Request,
    min: 0,
    max: 4,
    flexible: 3,
    fields: &[field("client_software_name", Str).since(3), field("client_software_version", Str).since(3)],
};

const API_VERSIONS_RESPONSE_SUPPORTED_FEATURE_KEY: &[Field] =
    &[field("name", Str).since(3), field("min_version", I16).since(3), field("max_version", I16).since(3)];

const API_VERSIONS_RESPONSE_FINALIZED_FEATURE_KEY: &[Field] =
    &[field("name", Str).since(3), field("max_version_level", I16).since(3), field("min_version_level", I16).since(3)];

const API_VERSIONS_RESPONSE_API_VERSION: &[Field] =
    &[field("api_key", I16), field("min_version", I16), field("max_version", I16)];

pub(super) static API_VERSIONS_RESPONSE: Layout = Layout {
    message: "ApiVersions",
    direction: Direction::Response,
    min: 0,
    max: 4,
    flexible: 3,
    fields: &[
        field("error_code", I16),
        field("api_keys", Array(&Struct(API_VERSIONS_RESPONSE_API_VERSION))),
        field("throttle_time_ms", I32).since(1),
        field("supported_features", Array(&Struct(API_VERSIONS_RESPONSE_SUPPORTED_FEATURE_KEY))).since(3).tag(0),
        field("finalized_features_epoch", I64).since(3).tag(1),
        field("finalized_features", Array(&Struct(API_VERSIONS_RESPONSE_FINALIZED_FEATURE_KEY))).since(3).tag(2),
        field("zk_migration_ready", Bool).since(3).tag(3),
    ],
};

pub(super) static SASL_HANDSHAKE_REQUEST: Layout = Layout {
    message: "SaslHandshake",
    direction: Direction::Request,
    min: 0,
    max: 1,
    flexible: NEVER,
    fields: &[field("mechanism", Str)],
};

pub(super) static SASL_HANDSHAKE_RESPONSE: Layout = Layout {
    message: "SaslHandshake",
    direction: Direction::Response,
    min: 0,
    max: 1,
    flexible: NEVER,
    fields: &[field("error_code", I16), field("mechanisms", Array(&Str))],
};

pub(super) static SASL_AUTHENTICATE_REQUEST: Layout = Layout {
    message: "SaslAuthenticate",
    direction: Direction::Request,
    min: 0,
    max: 2,
    flexible: 2,
    fields: &[field("auth_bytes", Bytes)],
};

pub(super) static SASL_AUTHENTICATE_RESPONSE: Layout = Layout {
    message: "SaslAuthenticate",
    direction: Direction::Response,
    min: 0,
    max: 2,
    flexible: 2,
    fields: &[
        field("error_code", I16),
        field("error_message", NullStr),
        field("auth_bytes", Bytes),
        field("session_lifetime_ms", I64).since(1),
    ],
};
