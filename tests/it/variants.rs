//! Variants and validation: no request removes or replaces what others use.
