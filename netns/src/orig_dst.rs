//! orig_dst
