//! The results of operations and reads, as the lifecycle and the store return them and the API sends them.

pub mod audit;
pub mod canary;
pub mod forget;
pub mod plugins;
pub mod rebuild;
pub mod records;
pub mod row;
pub mod work;
