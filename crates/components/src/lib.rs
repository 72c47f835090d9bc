//! Real ZooKeeper and Ceph servers, started from the system's packages in a folder of one's choice.
//!
//! Owns the processes that it starts and nothing else on the machine. Never part of the product:
//! tests, benchmarks and chores use it.
