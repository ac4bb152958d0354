//! Routes: which rule governs a request.
