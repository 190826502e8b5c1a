//! I2: at most one leader in each term.

use std::collections::BTreeMap;

use rswarm_raft::MemberId;

use super::Violation;

const NAME: &str = "I2";

/// Who was seen leading.
#[derive(Clone, Debug, Default)]
pub struct Leaders {
    of_term: BTreeMap<u64, MemberId>,
}

impl Leaders {
    /// A member says that it leads a term.
    pub fn observe(&mut self, term: u64, member: MemberId) -> Option<Violation> {
        let first = *self.of_term.entry(term).or_insert(member);
        (first != member).then(|| {
            let text = format!("term {term} has two leaders: members {first} and {member}");
            Violation::new(NAME, text)
        })
    }

    /// How many terms had a leader.
    pub fn terms(&self) -> usize {
        self.of_term.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_leader_of_a_term_is_caught_and_a_new_term_is_not() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.observe(1, MemberId(1)), None);
        assert_eq!(leaders.observe(1, MemberId(1)), None);
        assert_eq!(leaders.observe(2, MemberId(2)), None);
        assert!(leaders.observe(1, MemberId(2)).is_some());
        assert_eq!(leaders.terms(), 2);
    }
}
