//! The channel that misbehaves on command, as a library: see the crate `reunion-misbehaving`.

reunion_misbehaving::at_load!();
reunion_sdk::export_plugin!(reunion_sdk::export::OfChannel<reunion_misbehaving::MisbehavingChannel>, reunion_misbehaving::channel_plugin());
