//! The life of a task: one transition table; each source state is left by exactly one component.

use std::fmt;

/// What a task is, only forward. The numbers are Swarm's, so that order is comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum TaskState {
    #[default]
    New = 0,
    Pending = 64,
    Assigned = 192,
    Accepted = 256,
    Preparing = 320,
    Ready = 384,
    Starting = 448,
    Running = 512,
    Complete = 576,
    Shutdown = 640,
    Failed = 704,
    Rejected = 768,
    Orphaned = 832,
}

/// Who moves a task out of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Allocator,
    Scheduler,
    Agent,
    /// Nobody: the state is final.
    Nobody,
}

impl TaskState {
    /// Every state, in order.
    pub const ALL: [Self; 13] = [
        Self::New,
        Self::Pending,
        Self::Assigned,
        Self::Accepted,
        Self::Preparing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Orphaned,
    ];

    /// Whether nothing can follow.
    pub fn is_terminal(self) -> bool {
        self >= Self::Complete
    }

    /// The one component that moves a task out of this state.
    ///
    /// `Orphaned` is the exception that proves the rule: node health writes it over a state of
    /// the agent, since that agent will never report again.
    pub fn owner(self) -> Owner {
        match self {
            Self::New => Owner::Allocator,
            Self::Pending => Owner::Scheduler,
            s if s.is_terminal() => Owner::Nobody,
            _ => Owner::Agent,
        }
    }

    /// Whether the agent may report `next` after `self`.
    pub fn agent_may_report(self, next: Self) -> bool {
        self.owner() == Owner::Agent && next > self && next != Self::Orphaned
    }

    /// The state with this number.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as u16 == number)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Orphaned => "orphaned",
        })
    }
}

/// What managers want of a task, only forward, written by managers only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DesiredState {
    /// Prepared (image pulled), not started: its predecessor still stops or its delay runs.
    #[default]
    Ready,
    Running,
    Shutdown,
    /// Stopped, and its record may go.
    Remove,
}

impl fmt::Display for DesiredState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Shutdown => "shutdown",
            Self::Remove => "remove",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_one_owner_and_terminal_states_none() {
        for state in TaskState::ALL {
            assert_eq!(state.is_terminal(), state.owner() == Owner::Nobody, "{state}");
            assert_eq!(TaskState::from_number(state as u16), Some(state));
        }
    }

    #[test]
    fn an_agent_moves_only_forward_and_never_out_of_a_final_state() {
        for from in TaskState::ALL {
            for to in TaskState::ALL {
                let allowed = from.agent_may_report(to);
                assert!(!allowed || (to > from && !from.is_terminal()), "{from} {to}");
                assert!(!allowed || to != TaskState::Orphaned);
            }
        }
        assert!(TaskState::Running.agent_may_report(TaskState::Failed));
        assert!(!TaskState::New.agent_may_report(TaskState::Running));
    }
}
