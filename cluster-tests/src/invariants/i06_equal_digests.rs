//! I6: managers that applied the same entries have the same state.

use std::collections::BTreeMap;

use super::Violation;

const NAME: &str = "I6";

/// The digest at each index, from whoever was there first.
#[derive(Clone, Debug, Default)]
pub struct Digests {
    of_index: BTreeMap<u64, ([u8; 32], String)>,
}

impl Digests {
    /// A manager's state after the entry at `index`, applied now or again.
    pub fn observe(&mut self, manager: &str, index: u64, digest: [u8; 32]) -> Option<Violation> {
        let (first, who) = self.of_index.entry(index).or_insert_with(|| (digest, manager.to_owned()));
        (*first != digest).then(|| {
            let short = |digest: &[u8; 32]| digest[..6].iter().map(|b| format!("{b:02x}")).collect::<String>();
            let text = format!(
                "after entry {index} the state of {manager} is {}, that of {who} {}",
                short(&digest),
                short(first),
            );
            Violation::new(NAME, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_state_at_the_same_index_is_caught() {
        let mut digests = Digests::default();
        assert_eq!(digests.observe("a", 1, [1; 32]), None);
        assert_eq!(digests.observe("b", 1, [1; 32]), None);
        assert_eq!(digests.observe("a", 2, [2; 32]), None);
        let caught = digests.observe("b", 2, [3; 32]);
        assert!(caught.is_some_and(|v| v.text.contains("entry 2") && v.text.contains('b')));
    }
}
