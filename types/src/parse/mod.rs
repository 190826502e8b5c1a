//! What people write on command lines and in compose files.
