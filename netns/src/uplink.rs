//! TEMPORARY
use crate::error::Result;
use std::{fmt, net::IpAddr, os::fd::BorrowedFd, str::FromStr};
pub struct Uplink(Inner);
#[derive(Clone)]
pub struct Inner(String);
impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for Inner {
    type Err = crate::Error;
    fn from_str(s: &str) -> Result<Self> {
        Ok(Self(s.into()))
    }
}
impl Inner {
    pub fn configure(&self) -> Result<()> {
        todo!()
    }
}
impl Uplink {
    pub fn create(_into: BorrowedFd<'_>, _denied: &[IpAddr]) -> Result<Self> {
        todo!()
    }
    pub fn inner(&self) -> &Inner {
        &self.0
    }
    pub fn remove(self) -> Result<()> {
        todo!()
    }
}
pub fn sweep() -> Result<()> {
    Ok(())
}
