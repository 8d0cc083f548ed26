//! reunion-outreach
