//! Node numbers and VXLAN network identifiers.

use rswarm_types::Refusal;
use rswarm_types::limits::{NODE_NUMBER_MAX, VNI_MAX, VNI_MIN};

use crate::apply::Draft;

impl Draft {
    /// The next number that no node has and that does not rest.
    pub(crate) fn next_node_number(&mut self) -> Result<u16, Refusal> {
        let last = self.state.position.node_number;
        let free = |number: &u16| {
            !self.state.indexes.node_numbers.contains_key(number) && !self.state.retired.contains_key(number)
        };
        let number = (last.saturating_add(1)..=NODE_NUMBER_MAX).chain(1..=last).find(free).ok_or_else(|| {
            Refusal::Exhausted(format!(
                "no node number is free: {} nodes have one and {} rest for an hour after node rm",
                self.state.indexes.node_numbers.len(),
                self.state.retired.len(),
            ))
        })?;
        self.state.position.node_number = number;
        Ok(number)
    }

    /// The next segment that no network has.
    pub(crate) fn next_vni(&mut self) -> Result<u32, Refusal> {
        let last = self.state.position.vni.max(VNI_MIN - 1);
        let free = |vni: &u32| !self.state.indexes.vnis.contains_key(vni);
        let vni = (last + 1..=VNI_MAX).chain(VNI_MIN..=last).find(free).ok_or_else(|| {
            Refusal::Exhausted(format!("no VXLAN network identifier is free between {VNI_MIN} and {VNI_MAX}"))
        })?;
        self.state.position.vni = vni;
        Ok(vni)
    }
}
