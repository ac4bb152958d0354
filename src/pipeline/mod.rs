//! The life of a request, and the only place with transitions between its steps.
