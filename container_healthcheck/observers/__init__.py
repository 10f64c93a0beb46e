"""What is seen of the host, and where from: the engine, the apps, the drain marks."""
