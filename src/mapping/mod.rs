//! Events in the forms their readers know, one file a format.

pub mod text;
