"""What the operating system asks for: files that appear whole, quiet libraries, signals, devices."""
