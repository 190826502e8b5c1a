//! A sum over all rows that two managers at the same index must agree on.

use sha2::{Digest as _, Sha256};

use crate::canonical::Canonical;

/// SHA-256 of one row: its table, then the record, whose first fields are its key.
pub(crate) type RowHash = [u8; 32];

/// Tables, in the order of snapshots. The number is part of each row's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Table {
    Cluster = 1,
    Nodes = 2,
    Networks = 3,
    Services = 4,
    Tasks = 5,
    Restarts = 6,
    Requests = 7,
    Retired = 8,
    Cursor = 9,
    AddressCursors = 10,
}

/// Wrapping 256-bit sum of row hashes, so that a changed row costs two hashes, not all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum([u64; 4]);

impl Sum {
    pub(crate) fn add(&mut self, row: &RowHash) {
        let mut carry = false;
        for (limb, other) in self.0.iter_mut().zip(limbs(row)) {
            let (sum, over) = limb.overflowing_add(other);
            let (sum, over_carry) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = over || over_carry;
        }
    }

    pub(crate) fn subtract(&mut self, row: &RowHash) {
        let mut borrow = false;
        for (limb, other) in self.0.iter_mut().zip(limbs(row)) {
            let (rest, under) = limb.overflowing_sub(other);
            let (rest, under_borrow) = rest.overflowing_sub(u64::from(borrow));
            *limb = rest;
            borrow = under || under_borrow;
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 32] {
        let mut out = [0; 32];
        for (place, limb) in out.chunks_exact_mut(8).zip(self.0) {
            place.copy_from_slice(&limb.to_le_bytes());
        }
        out
    }
}

fn limbs(row: &RowHash) -> [u64; 4] {
    let mut out = [0; 4];
    for (limb, bytes) in out.iter_mut().zip(row.chunks_exact(8)) {
        *limb = u64::from_le_bytes(bytes.try_into().expect("chunks of exactly 8 bytes"));
    }
    out
}

/// Hash of a row.
pub(crate) fn hash_row(table: Table, record: &impl Canonical) -> RowHash {
    let mut bytes = Vec::with_capacity(512);
    bytes.push(table as u8);
    record.write(&mut bytes);
    Sha256::digest(&bytes).into()
}

/// Hash of a value by itself, e.g. of a spec that many rows share.
pub(crate) fn hash_value(value: &impl Canonical) -> RowHash {
    let mut bytes = Vec::with_capacity(1_024);
    value.write(&mut bytes);
    Sha256::digest(&bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_can_be_subtracted_in_any_order_across_carries() {
        let rows: Vec<RowHash> = (0u8..50).map(|n| Sha256::digest([n, 255]).into()).collect();
        let mut sum = Sum::default();
        for row in &rows {
            sum.add(row);
        }
        let full = sum;
        sum.add(&[255; 32]);
        assert_ne!(sum, full);
        sum.subtract(&[255; 32]);
        assert_eq!(sum, full);
        for row in rows.iter().rev() {
            sum.subtract(row);
        }
        assert_eq!(sum, Sum::default());
    }
}
