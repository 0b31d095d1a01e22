//! One classic consumer group, as its coordinator keeps it: members, generation, assignments, committed offsets.
//!
//! The rules are those of Kafka's group coordinator for the classic protocol (KIP-62, KIP-134, KIP-394), without static members. Nothing
//! here looks at a clock or a socket: each call is given the time, and a held answer is a channel. [`Group`] is the main type.
//!
//! ```text
//! Empty --join--> PreparingRebalance --all joined, or time up--> CompletingRebalance --leader's sync--> Stable
//!   ^                |    ^                                             |                                |
//!   +--nobody left---+    +------------ join, leave, session expired ---+--------------------------------+
//! ```

mod join;
mod offsets;
mod rebalance;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use protocol::error_code::ErrorCode;
use tokio::sync::oneshot;
use tokio::time::Instant;

pub(crate) use join::Join;
pub(crate) use offsets::{Commit, Committed};

/// Members of a group, at most.
pub(crate) const MAX_MEMBERS: usize = 10_000;
/// How long a new member may wait for its first generation: it cannot heartbeat yet.
const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// What the cluster's settings say about groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) join_delay: Duration,
    pub(crate) min_session_timeout: Duration,
    pub(crate) max_session_timeout: Duration,
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    /// Members are to join again. `initial` if the group was empty before.
    PreparingRebalance {
        initial: bool,
    },
    /// All have joined; the leader is to say who gets what.
    CompletingRebalance,
    Stable,
}

impl Phase {
    /// Kafka's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance { .. } => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// The answer to a JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) error: ErrorCode,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) member_id: String,
    /// For the leader alone: member id and metadata.
    pub(crate) members: Vec<(String, Bytes)>,
}

impl Joined {
    pub(crate) fn refused(error: ErrorCode, member_id: &str) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            member_id: member_id.to_owned(),
            members: Vec::new(),
        }
    }
}

/// The answer to a SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) error: ErrorCode,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl Synced {
    pub(crate) fn refused(error: ErrorCode) -> Self {
        Self { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// Where a held answer goes. The connection may be gone by then; then nobody hears it, as with a real broker.
pub(crate) type Reply<T> = oneshot::Sender<T>;

fn answer<T>(reply: Option<Reply<T>>, value: T) {
    if let Some(reply) = reply {
        let _ = reply.send(value);
    }
}

/// What a coordinator keeps of a member even when another node takes the group over.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    /// Name and metadata, the preferred one first.
    protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) profile: Profile,
    awaiting_join: Option<Reply<Joined>>,
    awaiting_sync: Option<Reply<Synced>>,
    /// When its session ends, unless it is waiting for an answer.
    expires: Instant,
    /// Whether it waits for its first generation.
    is_new: bool,
}

impl Member {
    /// When its session ends; none while it waits for the others, when nothing is expected of it.
    fn deadline(&self) -> Option<Instant> {
        let waiting = self.awaiting_join.is_some() || self.awaiting_sync.is_some();
        (self.is_new || !waiting).then_some(self.expires)
    }

    pub(crate) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let found = self.profile.protocols.iter().find(|(name, _)| Some(name.as_str()) == protocol);
        found.map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }
}

/// When PreparingRebalance ends at the latest.
#[derive(Debug, Clone, Copy)]
enum JoinTimer {
    /// An empty group waits for further members: until `at`, and as long again if one came, up to `left` more.
    Initial {
        at: Instant,
        delay: Duration,
        left: Duration,
    },
    Rebalance {
        at: Instant,
    },
}

impl JoinTimer {
    fn at(self) -> Instant {
        match self {
            Self::Initial { at, .. } | Self::Rebalance { at } => at,
        }
    }
}

/// What another coordinator finds when it takes the group over: the last generation that was complete.
#[derive(Debug, Clone, Default)]
struct Persisted {
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Profile>,
}

/// One classic group.
#[derive(Debug)]
pub(crate) struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Ids that were handed out and not joined with yet, and when they lapse.
    pending: BTreeMap<String, Instant>,
    join_timer: Option<JoinTimer>,
    /// Whether a member came while an empty group waited for more.
    new_member_added: bool,
    awaited_syncs: BTreeSet<String>,
    sync_deadline: Option<Instant>,
    persisted: Persisted,
    offsets: BTreeMap<(String, i32), Committed>,
}

impl Group {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            join_timer: None,
            new_member_added: false,
            awaited_syncs: BTreeSet::new(),
            sync_deadline: None,
            persisted: Persisted::default(),
            offsets: BTreeMap::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    pub(crate) fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    pub(crate) fn members(&self) -> &BTreeMap<String, Member> {
        &self.members
    }

    pub(crate) fn heartbeat(&mut self, now: Instant, member_id: &str, generation: i32) -> ErrorCode {
        if !self.members.contains_key(member_id) {
            return ErrorCode::UNKNOWN_MEMBER_ID;
        }
        if generation != self.generation {
            return ErrorCode::ILLEGAL_GENERATION;
        }
        match self.phase {
            Phase::Empty => ErrorCode::UNKNOWN_MEMBER_ID,
            Phase::PreparingRebalance { .. } => {
                self.prolong(now, member_id);
                ErrorCode::REBALANCE_IN_PROGRESS
            }
            Phase::CompletingRebalance | Phase::Stable => {
                self.prolong(now, member_id);
                ErrorCode::NONE
            }
        }
    }

    /// A member leaves, or its session is over.
    pub(crate) fn leave(&mut self, now: Instant, rules: &Rules, member_id: &str) -> ErrorCode {
        if self.pending.remove(member_id).is_some() {
            self.complete_if_all_joined(now);
        } else if self.members.contains_key(member_id) {
            self.remove(now, rules, member_id);
        } else {
            return ErrorCode::UNKNOWN_MEMBER_ID;
        }
        ErrorCode::NONE
    }

    /// The next moment at which [`Group::tick`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let sessions = self.members.values().filter_map(Member::deadline);
        let others = self.join_timer.map(JoinTimer::at).into_iter().chain(self.sync_deadline);
        sessions.chain(self.pending.values().copied()).chain(others).min()
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant, rules: &Rules) {
        let expired = |(id, member): (&String, &Member)| {
            member.deadline().is_some_and(|deadline| deadline <= now).then(|| id.clone())
        };
        for id in self.members.iter().filter_map(expired).collect::<Vec<_>>() {
            self.remove(now, rules, &id);
        }
        let before = self.pending.len();
        self.pending.retain(|_, lapses| *lapses > now);
        if self.pending.len() < before {
            self.complete_if_all_joined(now);
        }
        self.join_timer_due(now, rules);
        self.sync_timer_due(now, rules);
    }

    /// Another node takes the group over. Whoever waits is told; what is not part of a complete generation is lost.
    pub(crate) fn move_coordinator(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            answer(member.awaiting_join.take(), Joined::refused(ErrorCode::NOT_COORDINATOR, ""));
            answer(member.awaiting_sync.take(), Synced::refused(ErrorCode::NOT_COORDINATOR));
        }
        let persisted = self.persisted.clone();
        let offsets = std::mem::take(&mut self.offsets);
        *self = Self {
            phase: if persisted.members.is_empty() { Phase::Empty } else { Phase::Stable },
            generation: persisted.generation,
            protocol_type: persisted.protocol_type.clone(),
            protocol: persisted.protocol.clone(),
            leader: persisted.leader.clone(),
            offsets,
            ..Self::new()
        };
        for (id, profile) in &persisted.members {
            let expires = now + profile.session_timeout;
            let profile = profile.clone();
            let member = Member { profile, awaiting_join: None, awaiting_sync: None, expires, is_new: false };
            self.members.insert(id.clone(), member);
        }
        self.persisted = persisted;
    }

    fn prolong(&mut self, now: Instant, member_id: &str) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.expires = now + member.profile.session_timeout;
        }
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    fn persist(&mut self) {
        self.persisted = Persisted {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members.iter().map(|(id, member)| (id.clone(), member.profile.clone())).collect(),
        };
    }
}
