//! Layouts of what an operator asks of settings: DescribeConfigs, IncrementalAlterConfigs.

use super::Kind::{Array, Bool, I8, I16, I32, NullArray, NullStr, Str, Struct};
use super::{Direction, Field, Layout, field};

const DESCRIBE_CONFIGS_REQUEST_RESOURCE: &[Field] =
    &[field("resource_type", I8), field("resource_name", Str), field("configuration_keys", NullArray(&Str))];

pub(super) static DESCRIBE_CONFIGS_REQUEST: Layout = Layout {
    message: "DescribeConfigs",
    direction: Direction::Request,
    min: 1,
    max: 4,
    flexible: 4,
    fields: &[
        field("resources", Array(&Struct(DESCRIBE_CONFIGS_REQUEST_RESOURCE))),
        field("include_synonyms", Bool),
        field("include_documentation", Bool).since(3),
    ],
};

const DESCRIBE_CONFIGS_RESPONSE_SYNONYM: &[Field] = &[field("name", Str), field("value", NullStr), field("source", I8)];

const DESCRIBE_CONFIGS_RESPONSE_RESULT: &[Field] = &[
    field("error_code", I16),
    field("error_message", NullStr),
    field("resource_type", I8),
    field("resource_name", Str),
    field("configs", Array(&Struct(DESCRIBE_CONFIGS_RESPONSE_RESOURCE_RESULT))),
];

const DESCRIBE_CONFIGS_RESPONSE_RESOURCE_RESULT: &[Field] = &[
    field("name", Str),
    field("value", NullStr),
    field("read_only", Bool),
    field("config_source", I8),
    field("is_sensitive", Bool),
    field("synonyms", Array(&Struct(DESCRIBE_CONFIGS_RESPONSE_SYNONYM))),
    field("config_type", I8).since(3),
    field("documentation", NullStr).since(3),
];

pub(super) static DESCRIBE_CONFIGS_RESPONSE: Layout = Layout {
    message: "DescribeConfigs",
    direction: Direction::Response,
    min: 1,
    max: 4,
    flexible: 4,
    fields: &[field("throttle_time_ms", I32), field("results", Array(&Struct(DESCRIBE_CONFIGS_RESPONSE_RESULT)))],
};

const INCREMENTAL_ALTER_CONFIGS_REQUEST_ALTERABLE_CONFIG: &[Field] =
    &[field("name", Str), field("config_operation", I8), field("value", NullStr)];

const INCREMENTAL_ALTER_CONFIGS_REQUEST_ALTER_CONFIGS_RESOURCE: &[Field] = &[
    field("resource_type", I8),
    field("resource_name", Str),
    field("configs", Array(&Struct(INCREMENTAL_ALTER_CONFIGS_REQUEST_ALTERABLE_CONFIG))),
];

pub(super) static INCREMENTAL_ALTER_CONFIGS_REQUEST: Layout = Layout {
    message: "IncrementalAlterConfigs",
    direction: Direction::Request,
    min: 0,
    max: 1,
    flexible: 1,
    fields: &[
        field("resources", Array(&Struct(INCREMENTAL_ALTER_CONFIGS_REQUEST_ALTER_CONFIGS_RESOURCE))),
        field("validate_only", Bool),
    ],
};

const INCREMENTAL_ALTER_CONFIGS_RESPONSE_ALTER_CONFIGS_RESOURCE_RESPONSE: &[Field] = &[
    field("error_code", I16),
    field("error_message", NullStr),
    field("resource_type", I8),
    field("resource_name", Str),
];

pub(super) static INCREMENTAL_ALTER_CONFIGS_RESPONSE: Layout = Layout {
    message: "IncrementalAlterConfigs",
    direction: Direction::Response,
    min: 0,
    max: 1,
    flexible: 1,
    fields: &[
        field("throttle_time_ms", I32),
        field("responses", Array(&Struct(INCREMENTAL_ALTER_CONFIGS_RESPONSE_ALTER_CONFIGS_RESOURCE_RESPONSE))),
    ],
};
