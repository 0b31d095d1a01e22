//! Describe cluster, topics, create topic, offsets: what the sidecar needs of the admin API.
