//! DER as far as key stores and names need it (X.690). Read and made by hand, since it is this little.

use super::Error;

pub const INTEGER: u8 = 0x02;
pub const OCTET_STRING: u8 = 0x04;
pub const NULL: u8 = 0x05;
pub const OBJECT_IDENTIFIER: u8 = 0x06;
pub const UTF8_STRING: u8 = 0x0c;
pub const BMP_STRING: u8 = 0x1e;
pub const UTC_TIME: u8 = 0x17;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;
/// `[0] EXPLICIT`, constructed.
pub const CONTEXT_0: u8 = 0xa0;

/// One element (X.690 §8.1.3): lengths from 128 on take the long form.
pub fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|&byte| byte == 0).collect();
            out.push(0x80 | bytes.len() as u8);
            out.extend(bytes);
        }
    }
    out.extend(contents);
    out
}

/// A SEQUENCE of elements that are encoded already.
pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    der(SEQUENCE, &parts.concat())
}

/// What is left to read. Anything but DER is [`Error::Format`].
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element: its tag and contents.
    pub fn any(&mut self) -> Result<(u8, Self), Error> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>().ok_or(Error::Format)?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            // The long form (X.690 §8.1.3.5); an indefinite length is not DER.
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(Error::Format)?;
            if bytes.is_empty() || bytes.len() > size_of::<u32>() {
                return Err(Error::Format);
            }
            (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
        };
        let (contents, rest) = rest.split_at_checked(length).ok_or(Error::Format)?;
        self.0 = rest;
        Ok((tag, Self(contents)))
    }

    pub fn element(&mut self, expected: u8) -> Result<Self, Error> {
        let (tag, contents) = self.any()?;
        if tag == expected { Ok(contents) } else { Err(Error::Format) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_form_lengths() {
        assert_eq!(der(0x0c, &[0; 0x7f])[..2], [0x0c, 0x7f]);
        assert_eq!(der(0x0c, &[0; 0x80])[..3], [0x0c, 0x81, 0x80]);
        assert_eq!(der(0x0c, &[0; 0x1234])[..4], [0x0c, 0x82, 0x12, 0x34]);
    }
}
