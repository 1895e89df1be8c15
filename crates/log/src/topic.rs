//! Topics: the record, look-ups, and the pure commands that create and delete them.
