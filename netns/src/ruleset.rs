//! nftables rules as plain data; [`Ruleset`]'s `Display` is nft(8) syntax, [`crate::nft`] loads it.

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    pub tables: Vec<Table>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
}

impl Ruleset {
    /// Replaces the tables of the same names in the calling thread's network namespace, in one atomic transaction.
    pub fn load(&self) -> crate::error::Result<()> {
        todo!()
    }
}
