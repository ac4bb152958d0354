//! Bodies: what counts as complete, and what becomes of requests whose client goes away.
