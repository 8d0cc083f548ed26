//! The source that misbehaves on command, as a library: see the crate `reunion-misbehaving`.

reunion_misbehaving::at_load!();
reunion_sdk::export_plugin!(reunion_sdk::export::OfSource<reunion_misbehaving::MisbehavingSource>, reunion_misbehaving::source_plugin());
