//! Attributes: length, kind, value, padded to four bytes.

const HEADER: usize = 4;
const NESTED: u16 = 1 << 15;
const KIND_MASK: u16 = 0x3fff;

/// Writes attributes, or a header in front of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Attributes that follow these bytes (a family's header, whole words).
    pub fn after(header: &[u8]) -> Self {
        debug_assert_eq!(header.len() % 4, 0);
        Self(header.to_vec())
    }

    /// # Panics
    /// When the value exceeds 65,531 bytes: attributes carry a 16-bit length.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(HEADER + value.len()).expect("callers split values above 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A number in network byte order, as nfnetlink wants its numbers.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Text with its closing zero.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Attributes within an attribute.
    pub fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        inside(&mut inner);
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Reads attributes; stops at the first malformed one.
#[derive(Clone, Debug)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head: [u8; HEADER] = self.0.get(..HEADER)?.try_into().ok()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & KIND_MASK;
        let value = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The first attribute of this kind.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.be32(1, 7).text(2, "web").nest(3, |w| {
            w.bytes(4, &[1, 2, 3, 4, 5]);
        });
        assert_eq!(writer.0.len() % 4, 0);
        let all: Vec<_> = Attributes(&writer.0).collect();
        assert_eq!(all[0], (1, &[0, 0, 0, 7][..]));
        assert_eq!(all[1], (2, &b"web\0"[..]));
        assert_eq!(attribute(all[2].1, 4), Some(&[1, 2, 3, 4, 5][..]));
        assert_eq!(attribute(&writer.0, 9), None);
    }

    #[test]
    fn a_malformed_attribute_ends_the_list() {
        for bytes in [&[3, 0, 1, 0][..], &[200, 0, 1, 0, 1, 2], &[1], &[4, 0]] {
            assert_eq!(Attributes(bytes).count(), 0, "{bytes:?}");
        }
    }
}
