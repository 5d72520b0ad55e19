"""Our objectives inside other trainers. Each module needs its trainer, and is imported only by those who have that trainer."""
