//! The request and response types used: the generated ones of `kafka-protocol`, behind one bounded-decode door.
