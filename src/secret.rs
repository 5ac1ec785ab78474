//! [`Secret`]: a value that cannot be printed, logged or serialised, and is wiped when dropped.

use zeroize::{Zeroize, Zeroizing};

/// A secret value. It has no `Debug`, `Display`, `Serialize` or `Clone`: whoever needs the value says [`expose`](Self::expose).
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<'de, T: Zeroize + serde::Deserialize<'de>> serde::Deserialize<'de> for Secret<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::new)
    }
}
