//! The admin listener: health, metrics and, on one route table, everything an operator calls.
