"""What a laptop uses in place of Azure and the providers; never deployed."""
