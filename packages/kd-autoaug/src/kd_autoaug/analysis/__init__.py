"""What augmentation destroys: views, a teacher's and a probe's answers about them, figures with intervals, advice."""
