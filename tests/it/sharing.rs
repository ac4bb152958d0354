//! The origin sees exactly what the key says: targets, hosts, parameters and forwarding fields.
