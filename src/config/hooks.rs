//! Which parts run: the hook lists of the old system, or what is configured.
//!
//! A hook is a Java class name; none is loaded, each stands for a part.

use super::{
    property::{File, nearest},
    settings::Parts,
    values::Values,
};

const STARTUP: &str = "com.networknt.server.StartupHookProvider";
const SHUTDOWN: &str = "com.networknt.server.ShutdownHookProvider";
const PACKAGE: &str = "com.networknt.mesh.kafka.";

/// What a start-up hook stands for.
#[derive(Clone, Copy)]
enum Hook {
    Producer,
    /// Audit opens its producer by itself.
    Audit,
    Reactive,
    Admin,
    Later(&'static str),
}

const HOOKS: [(&str, Hook); 8] = [
    ("ProducerStartupHook", Hook::Producer),
    ("AuditProducerStartupHook", Hook::Audit),
    ("ActiveConsumerStartupHook", Hook::Later("the active consumer")),
    ("ReactiveConsumerStartupHook", Hook::Reactive),
    ("KsqldbActiveConsumerStartupHook", Hook::Later("the ksqlDB consumer")),
    ("KsqldbReactiveConsumerStartupHook", Hook::Later("the ksqlDB consumer")),
    ("AdminClientStartupHook", Hook::Admin),
    ("MessageReplayStreamStartupHook", Hook::Later("replay")),
];

/// The parts. `topics` says whether a topic is configured, without which there is nothing to consume.
pub(super) fn parts(values: &mut Values, topics: bool) -> Parts {
    let Some(hooks) = names(values, STARTUP) else {
        check_shutdown(values);
        return Parts { producer: true, reactive: topics, admin: true };
    };
    let mut parts = Parts { producer: false, reactive: false, admin: false };
    let mut later: Vec<String> = Vec::new();
    for hook in hooks {
        match known(&hook, "StartupHook") {
            Known::Hook(Hook::Producer) => parts.producer = true,
            Known::Hook(Hook::Audit) => {}
            Known::Hook(Hook::Reactive) => parts.reactive = true,
            Known::Hook(Hook::Admin) => parts.admin = true,
            Known::Hook(Hook::Later(part)) => later.push(format!("{hook} ({part} is not built yet)")),
            Known::Foreign => later.push(format!("{hook} (it has no counterpart here)")),
            Known::Not(text) => values.fault(File::Service, STARTUP, text),
        }
    }
    check_shutdown(values);
    if !later.is_empty() {
        values.warnings.push(format!("hooks without effect: {}", later.join(", ")));
    }
    if parts.reactive && !topics {
        values.warnings.push(
            "the reactive consumer is listed, but there is no topic for it: it stays off until kafka-consumer.topic is set"
                .to_owned(),
        );
        parts.reactive = false;
    }
    if !(parts.producer || parts.reactive || parts.admin) && values.faults.is_empty() {
        values.warnings.push(format!("service.{STARTUP} lists no part that runs: the sidecar only answers probes"));
    }
    parts
}

enum Known {
    Hook(Hook),
    Foreign,
    Not(String),
}

fn known(hook: &str, ending: &str) -> Known {
    let name = match hook.strip_prefix(PACKAGE) {
        Some(name) => name,
        None if hook.starts_with("com.networknt.") => return Known::Foreign,
        None => hook,
    };
    let names = HOOKS.map(|(name, _)| name.replace("StartupHook", ending));
    if hook.starts_with(PACKAGE)
        && let Some(at) = names.iter().position(|known| known == name)
        && let Some((_, hook)) = HOOKS.get(at)
    {
        return Known::Hook(*hook);
    }
    let near = nearest(name, names.iter().map(String::as_str));
    Known::Not(match near {
        Some(near) => format!("there is no hook {hook:?}; did you mean {PACKAGE}{near}?"),
        None => format!("there is no hook {hook:?}; there are {}", names.join(", ")),
    })
}

/// Everything that starts is ended in order: the shutdown list is only checked for misspelt names.
fn check_shutdown(values: &mut Values) {
    for hook in names(values, SHUTDOWN).unwrap_or_default() {
        if let Known::Not(text) = known(&hook, "ShutdownHook") {
            values.fault(File::Service, SHUTDOWN, text);
        }
    }
}

/// The class names; the dash of a list that stands in a text is dropped.
fn names(values: &Values, list: &'static str) -> Option<Vec<String>> {
    let names = values.optional_list(File::Service, list)?;
    Some(
        names
            .iter()
            .map(|name| name.trim_start_matches('-').trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect(),
    )
}
